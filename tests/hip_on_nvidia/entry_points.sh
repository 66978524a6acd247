#!/usr/bin/env bash
# The driver library has every entry point that the sources name; only a GPU would tell otherwise.
# Usage: entry_points.sh LIBRARY SOURCE...
set -euo pipefail
library=$1
shift

exported=$(nm -D --defined-only "$library" | awk '{print $NF}' | sort -u)
# What tells the shape of a graph is optional, and for CUDA only.
named=$(grep -ohE '"hip[A-Z][A-Za-z0-9]*"' "$@" | tr -d '"' | grep -vE '^hipGraph(GetNodes|KernelNodeGetParams)$' | sort -u)
missing=$(comm -13 <(echo "$exported") <(echo "$named"))
[ -z "$missing" ] || { echo "missing: $missing" >&2; exit 1; }
echo "$(wc -l <<<"$named") entry points are there"
