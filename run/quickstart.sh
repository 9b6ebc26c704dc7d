#!/usr/bin/env bash
# The main job in small: vocabulary, pretraining, instruction tuning, finetuning and evaluation of a Switch model with 8 experts and of its FLOP-matched
# dense twin on the toy world, then a table of both at every stage.
#
# Usage:    run/quickstart.sh [OUT=runs/quickstart]          (SEED=1: of data and weights; SCALE=1: times as many steps)
# Cost:     4 to 8 minutes on 2 cores, 0.3 GB of memory, 150 MB of disk. Interrupted, the same command goes on where it was.
# Expected: the table in README.md; at least 60 % mean exact match over the seen families for both models.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/quickstart} seed=${SEED:-1} scale=${SCALE:-1}
flanmoe=${FLANMOE:-build/flanmoe}
cores=$(nproc)
threads=$((cores > 1 ? cores / 2 : 1))   # the two models are trained side by side, half of the cores each
[ "$threads" -gt 4 ] && threads=4        # more only wait for each other at this size
source run/toy_stages.sh

make_world
say "training the dense model and the Switch model side by side, $threads threads each"
(stages dense toy.toml && evaluations dense) 2> >(sed -u 's/^/[dense]  /' >&2) &
dense=$!
(stages switch toy.toml toy-switch.toml && evaluations switch) 2> >(sed -u 's/^/[switch] /' >&2) &
switch=$!
status=0
wait $dense || status=$?
wait $switch || status=$?
[ $status -eq 0 ] || { say "stopped with exit code $status; the same command goes on from here"; exit $status; }

{
    echo "Toy world, seed $seed, exact match on held-out instances in per cent (mean over tasks)"
    echo
    echo "| stage | evaluated on | majority answer | dense | Switch, 8 experts |"
    echo "|---|---|---|---|---|"
    row() { echo "| $1 | $2 | $(mean dense majority "$3") | $(mean dense exact_match "$3") | $(mean switch exact_match "$3") |"; }
    row "pretrained" "69 seen families" pretrain-seen
    row "pretrained" "8 held-out families" pretrain-heldout
    row "instruction-tuned" "69 seen families" instruct-seen
    row "instruction-tuned" "8 held-out families" instruct-heldout
    for task in "${tasks[@]}"; do
        row "finetuned from pretrained" "$task" "finetune-$task-from-pretrain"
        row "finetuned from instruction-tuned" "$task" "finetune-$task-from-instruct"
    done
} | tee "$out/table.md"
