#!/usr/bin/env bash
# The README's C example is examples/fill.c, which the tests compile and run. Usage: readme.sh README.md fill.c
set -euo pipefail
diff <(awk '/^```$/ {inside = 0} inside; /^```c$/ {inside = 1}' "$1") "$2"
