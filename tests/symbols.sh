#!/usr/bin/env bash
# The library exports the functions of the header and nothing else, needs only the C library and OpenMP, and has the
# SONAME of its version. Usage: symbols.sh LIBRARY HEADER
set -euo pipefail
library=$1 header=$2

declared=$(grep -oE '^DM_API .*\b(dm_[a-z_]+)\(' "$header" | grep -oE 'dm_[a-z_]+\(' | tr -d '(' | sort)
exported=$(nm -D --defined-only "$library" | awk '{print $NF}' | sort)
diff <(echo "$declared") <(echo "$exported") || { echo "declared (<) and exported (>) differ" >&2; exit 1; }

dynamic=$(readelf -d "$library")
major=$(awk '/define DM_VERSION_MAJOR/ {print $3}' "$header")
grep -qF "soname: [libdraftmeta.so.$major]" <<<"$dynamic" || { echo "SONAME is wrong: $dynamic" >&2; exit 1; }
others=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$dynamic" |
    grep -vE '^(libc|libm|libdl|libpthread|libgomp|libomp|ld-linux[a-z0-9-]*)\.so' || true)
[ -z "$others" ] || { echo "needs more than it should: $others" >&2; exit 1; }
echo "$(wc -l <<<"$declared") functions declared and exported"
