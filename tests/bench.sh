#!/usr/bin/env bash
# Usage: bench.sh DRAFTMETA CUPTI. The benchmark over a test driver and a fake CUPTI: its exit status, and what it says.
set -euo pipefail
draftmeta=$1 cupti=$2
json=$(mktemp)
trap 'rm -f "$json"' EXIT

# expect STATUS PATTERN OPTION...: runs the benchmark of one row.
expect() {
    local status=0 output
    output=$("$draftmeta" bench --samples 10 --match 'decode 8x300 pt64' "${@:3}" 2>&1) || status=$?
    printf '%s\n' "$output"
    if [ $status -ne "$1" ] || ! grep -q -- "$2" <<<"$output"; then
        echo "FAILED: status $status instead of $1, or the output lacks: $2"
        exit 1
    fi
}

# This driver has no L2 to flush, so that bars of the cold column are unknown, which --strict does not let pass.
export FAKE_CUPTI_NS=1000
expect 0 'bars: 1 met, 0 missed, 2 unknown' --cupti "$cupti" --json "$json"
grep -q '"timed_by": "CUPTI"' "$json"
expect 1 'how long the kernel runs, by CUPTI' --cupti "$cupti" --strict
FAKE_CUPTI_NS=9000 expect 1 'MISSED 1/3: warm > 1.45 SGLang' --cupti "$cupti" --strict
expect 0 'DIFFERENCES of two graphs' --cupti none --json "$json"
grep -q '"timed_by": "differences of graphs"' "$json"
expect 1 'bars: 0 met, 0 missed, 3 unknown' --cupti none --strict
FAKE_CUPTI_FAILS=1 expect 0 'no CUPTI: cuptiActivityEnable fails' --cupti "$cupti"
FAKE_CUPTI_LOSES=1 expect 0 'CUPTI recorded' --cupti "$cupti"
expect 2 'cannot be opened' --cupti /nowhere/libcupti.so
expect 2 'no row with nothing' --match nothing
