#!/bin/bash
# Two ranks of one thread beside one rank of two threads, the same global batch: seconds a step, interleaved, medians. For a quiet machine of two cores.
#
# Usage:    test/bench/ranks_bench.sh [CONFIG... options]        default: a Switch model of 6.7 million parameters on the toy world
# Expect:   two ranks at most 15 % slower.
cd "$(dirname "$0")/../.." || exit 1
flanmoe=$(realpath "${FLANMOE:-build/flanmoe}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
root=$PWD
cd "$folder" || exit 1
source "$root/test/e2e/tiny.sh"
FLANMOE=$flanmoe
tiny_world
options=(--set model.d_model=256 --set model.d_kv=32 --set model.heads=8 --set model.d_ff=512 --set data.batch_rows=16 --set data.micro_batch_rows=8 --set data.validation=[]
    --set eval.every=0 --set train.save_every=0 --set train.steps=40 "$@")

median() { grep -o '"seconds_per_step":[0-9.e-]*' "$1/metrics.jsonl" | grep -o '[0-9.e-]*$' | tail -n +6 | sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
for round in 1 2 3 4 5; do
    OMP_NUM_THREADS=2 "$flanmoe" train span.toml --run "one$round" "${options[@]}" > one.log 2>&1 || tail -3 one.log
    OMP_NUM_THREADS=1 mpirun -q --bind-to none -n 2 "$flanmoe" train span.toml --run "two$round" --set parallel.data=2 "${options[@]}" > two.log 2>&1 || tail -3 two.log
    one=$(median "one$round") two=$(median "two$round")
    echo "$one $two" | awk -v round="$round" '{printf "round %d: 1 rank x 2 threads %.2f ms, 2 ranks x 1 thread %.2f ms, ratio %.3f\n", round, 1e3 * $1, 1e3 * $2, $2 / $1}'
    echo "$one $two" >> medians
done
awk '{print $2 / $1}' medians | sort -g | awk '{v[NR] = $1} END {printf "median ratio %.3f\n", v[int((NR + 1) / 2)]}'
