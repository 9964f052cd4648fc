#!/usr/bin/env bash
# The sweep from the shell: one job for each length, one wait, one line for each result.
# Usage: ./sweep.sh [FOLDER]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=${1:-microstrip-shell}

ids=()
for length in 12 15 18; do
    mkdir -p "$results/$length"
    ids+=("$(submit_job --name "microstrip-${length}mm" --project microstrip \
        --workdir "$results/$length" --expect result.json --walltime 10m \
        -- python3 "$here/solver.py" --length "$length" --eps 9.8 --cell "${CELL:-0.1}")")
done
echo "submitted: ${ids[*]}"

simyard wait "${ids[@]}"
for id in "${ids[@]}"; do
    simyard logs "$id" | grep theory
done
