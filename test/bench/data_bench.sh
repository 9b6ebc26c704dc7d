#!/bin/bash
# Speed of task data on one core: raw text to tokens, cached tokens to packed rows; and how long training of the smallest model waits for its data.
#
# Usage:    test/bench/data_bench.sh [DATA [MIXTURE]]      DATA: the folder of the published sets (FLANMOE_DATA, ../shared/data); MIXTURE: flan-collection
# Expect:   150,000 tokens/s and core from raw text, 1,000,000 from the cache (processor time of one thread); at most 2 % of 500 steps spent waiting, the first left out.
cd "$(dirname "$0")/../.." || exit 1
data=$(realpath "${1:-${FLANMOE_DATA:-../shared/data}}") mixture=${2:-flan-collection} root=$PWD
flanmoe=$(realpath "${FLANMOE:-build/flanmoe}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
"$flanmoe" tokenizer train "$data/british-fiction" "$data/peps" --size 8192 --out vocabulary > log 2>&1 || { tail -3 log; exit 1; }
# Held-out items are another matter (src/data/held_out.hpp).
sed "/^\[held_out\]/,/^policy/d; s|\.\./task|$root/configs/task|g" "$root/configs/mixture/$mixture.toml" > mixture.toml
"$flanmoe" data mixture mixture.toml --data "$data" --tokenizer vocabulary --cache cache | grep -E 'tokens from raw text'
"$flanmoe" data mixture mixture.toml --data "$data" --tokenizer vocabulary --cache cache --rows 2000 | grep -E 'from the cache'

# 500 steps of the smallest model with a vocabulary of its size, 8 rows of 128 + 40 tokens as its recipe has it: seconds waited for data among all seconds.
"$flanmoe" tokenizer train "$data/peps" --size 700 --out small > log 2>&1 || { tail -3 log; exit 1; }
options=("$root/configs/model/toy.toml" "$root/configs/recipe/toy-instruct.toml" --set data.mixture=mixture.toml --set "data.folder=$data" --set data.tokenizer=small --set data.cache=cache
    --set train.steps=500 --set train.log_every=1 --set train.save_every=0 --set eval.every=0 --set train.tensorboard=false)
for threads in 1 2; do
    OMP_NUM_THREADS=$threads "$flanmoe" train "${options[@]}" --run "run$threads" > log 2>&1 || { tail -3 log; exit 1; }
    grep -o '"seconds_per_step":[0-9.e-]*\|"data_wait_seconds":[0-9.e-]*' "run$threads/metrics.jsonl" | awk -F: -v threads=$threads '
        /seconds_per_step/ && ++steps > 1 {all += $2} /data_wait/ && ++waits > 1 {wait += $2}
        END {printf "%d steps of toy.toml on %d threads: %.2f ms each, %.3f %% of the time waiting for data\n", steps - 1, threads, 1e3 * all / (steps - 1), 100 * wait / all}'
done
