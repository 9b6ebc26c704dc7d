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
mkdir -p "$out"

say() { echo "== $*" >&2; }
# Training that was stopped (exit code 75) stops the script with the same code.
train() { "$flanmoe" train "$@" --set train.threads=$threads --set "train.seed=$seed" --set "data.seed=$seed"; }

say "toy world (seed $seed), vocabulary, token shards"
[ -f "$out/world/manifest.json" ] || "$flanmoe" data toyworld --out "$out/world" --seed "$seed"
[ -f "$out/vocabulary/spiece.model" ] || "$flanmoe" tokenizer train "$out/world/vocabulary.txt" --size 700 --coverage 1 --out "$out/vocabulary"
"$flanmoe" data shard "$out/world/corpus" --documents blank-line --tokenizer "$out/vocabulary" --out "$out/shards"

stages() { # NAME MODEL_TOML...: every stage of one model
    local name=$1; shift
    local models=() base="$out/$name" file
    for file in "$@"; do models+=("configs/model/$file"); done
    local steps=$((5500 * scale))
    train "${models[@]}" configs/recipe/toy-pretrain.toml --run "$base/pretrain" --set "data.tokenizer=$out/vocabulary" --set "data.train=$out/shards" \
        --set "data.validation=$out/shards" --set train.steps=$((600 * scale))
    train "${models[@]}" configs/recipe/toy-instruct.toml --run "$base/instruct" --set "data.tokenizer=$out/vocabulary" --set "data.train=$out/world/instruct/train" \
        --set "data.validation=$out/world/instruct/valid" --set "train.start_from=$base/pretrain" --set train.steps=$steps --set eval.every=$((steps / 5)) --set train.save_every=$((steps / 5))
    for task in aspect ownership dialect; do
        for start in pretrain instruct; do
            train "${models[@]}" configs/recipe/toy-finetune.toml --run "$base/finetune-$task-from-$start" --set "data.tokenizer=$out/vocabulary" \
                --set "data.train=$out/world/finetune/$task/train.jsonl" --set "data.validation=$out/world/finetune/$task/valid.jsonl" --set "train.start_from=$base/$start"
        done
    done
}
evaluate() { # NAME STAGE FILES...: mean over the tasks into NAME/eval/STAGE
    local name=$1 stage=$2 run=$3; shift 3
    [ -f "$out/$name/eval/$stage/summary.json" ] ||
        "$flanmoe" eval "$out/$name/$run" "$@" --threads $threads --max-new-tokens 24 --no-options --out "$out/$name/eval/$stage" > /dev/null
}
evaluations() {
    evaluate "$1" pretrain-seen pretrain "$out/world/eval/seen"
    evaluate "$1" pretrain-heldout pretrain "$out/world/eval/heldout"
    evaluate "$1" instruct-seen instruct "$out/world/eval/seen"
    evaluate "$1" instruct-heldout instruct "$out/world/eval/heldout"
    for task in aspect ownership dialect; do
        for start in pretrain instruct; do
            evaluate "$1" "finetune-$task-from-$start" "finetune-$task-from-$start" "$out/world/finetune/$task/test.jsonl"
        done
    done
}

say "training the dense model and the Switch model side by side, $threads threads each"
(stages dense toy.toml && evaluations dense) 2> >(sed -u 's/^/[dense]  /' >&2) &
dense=$!
(stages switch toy.toml toy-switch.toml && evaluations switch) 2> >(sed -u 's/^/[switch] /' >&2) &
switch=$!
status=0
wait $dense || status=$?
wait $switch || status=$?
[ $status -eq 0 ] || { say "stopped with exit code $status; the same command goes on from here"; exit $status; }

# Mean over the tasks of one evaluation, in per cent.
mean() { awk -v key="\"$2\":" '/"mean"/ { inside = 1 } inside && index($0, key) { gsub(/[^0-9.eE-]/, "", $2); printf "%.1f", 100 * $2; exit }' "$out/$1/eval/$3/summary.json"; }
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
    for task in aspect ownership dialect; do
        row "finetuned from pretrained" "$task" "finetune-$task-from-pretrain"
        row "finetuned from instruction-tuned" "$task" "finetune-$task-from-instruct"
    done
} | tee "$out/table.md"
