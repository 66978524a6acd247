#!/usr/bin/env bash
# Installs a build, moves the installation, and uses it in the way named; "source" uses the source tree instead.
# Usage: run.sh find_package|pkg-config|source BUILD_DIR
set -euo pipefail
way=$1 build=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_and_move() {
    cmake --install "$build" --prefix "$work/first" >"$work/log"
    mv "$work/first" "$work/moved"
    pc=$(find "$work/moved" -name draftmeta.pc)
    test -n "$pc"
    test -n "$(find "$work/moved" -name LICENSE)"
    "$work/moved/bin/draftmeta" info >/dev/null
}

build_and_run() {
    cmake -S "$here" -B "$work/build" -DCMAKE_BUILD_TYPE=Release "$@"
    cmake --build "$work/build" --parallel
    "$work/build/consumer"
    "$work/build/consumer_cxx"
}

case $way in
find_package)
    install_and_move
    build_and_run -DCMAKE_PREFIX_PATH="$work/moved"
    ;;
source)
    build_and_run -DDRAFTMETA_SOURCE="$here/../.." -DDRAFTMETA_CUDA=OFF -DDRAFTMETA_HIP=OFF
    ;;
pkg-config)
    install_and_move
    export PKG_CONFIG_PATH=${pc%/*}
    read -ra flags <<<"$(pkg-config --cflags --libs draftmeta)"
    libdir=$(pkg-config --variable=libdir draftmeta)
    strict=(-Wall -Wextra -Wpedantic -Werror)
    gcc -std=c11 "${strict[@]}" "$here/consumer.c" -o "$work/consumer" "${flags[@]}" -Wl,-rpath,"$libdir"
    g++ -std=c++17 "${strict[@]}" "$here/consumer.cpp" -o "$work/consumer_cxx" "${flags[@]}" -Wl,-rpath,"$libdir"
    "$work/consumer"
    "$work/consumer_cxx"
    ;;
*)
    echo "unknown way: $way" >&2
    exit 2
    ;;
esac
echo "consumer by $way: ok"
