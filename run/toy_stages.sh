# What run/quickstart.sh and run/toy_study.sh share: the stages and evaluations of one model on the toy world. To be sourced, with these set:
#   out, seed, scale (times as many steps), threads (of each command), flanmoe (the binary)
# Every step ends in `|| return`: bash's `set -e` is off inside a list of commands with && or ||.
# Every stage and evaluation that is finished is left alone, so that a script goes on where it was interrupted.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
tasks=(aspect ownership dialect)   # downstream, never seen in instruction tuning

say() { echo "== $*" >&2; }
# Training that was stopped (exit code 75) stops the script with the same code.
train() { "$flanmoe" train "$@" --set train.threads=$threads --set "train.seed=$seed" --set "data.seed=$seed"; }

make_world() {
    say "toy world (seed $seed), vocabulary, token shards"
    mkdir -p "$out"
    [ -f "$out/world/manifest.json" ] || "$flanmoe" data toyworld --out "$out/world" --seed "$seed"
    [ -f "$out/vocabulary/spiece.model" ] || "$flanmoe" tokenizer train "$out/world/vocabulary.txt" --size 700 --coverage 1 --out "$out/vocabulary"
    "$flanmoe" data shard "$out/world/corpus" --documents blank-line --tokenizer "$out/vocabulary" --out "$out/shards"
}

stages() { # NAME MODEL_TOML...: pretraining, instruction tuning, and finetuning from both
    local name=$1; shift
    local models=() base="$out/$name" file
    for file in "$@"; do models+=("configs/model/$file"); done
    local steps=$((5500 * scale))
    train "${models[@]}" configs/recipe/toy-pretrain.toml --run "$base/pretrain" --set "data.tokenizer=$out/vocabulary" --set "data.train=$out/shards" \
        --set "data.validation=$out/shards" --set train.steps=$((600 * scale)) || return
    train "${models[@]}" configs/recipe/toy-instruct.toml --run "$base/instruct" --set "data.tokenizer=$out/vocabulary" --set "data.train=$out/world/instruct/train" \
        --set "data.validation=$out/world/instruct/valid" --set "train.start_from=$base/pretrain" --set train.steps=$steps --set eval.every=$((steps / 5)) --set train.save_every=$((steps / 5)) || return
    for task in "${tasks[@]}"; do
        for start in pretrain instruct; do
            train "${models[@]}" configs/recipe/toy-finetune.toml --run "$base/finetune-$task-from-$start" --set "data.tokenizer=$out/vocabulary" \
                --set "data.train=$out/world/finetune/$task/train.jsonl" --set "data.validation=$out/world/finetune/$task/valid.jsonl" --set "train.start_from=$base/$start" || return
        done
    done
}

evaluate() { # NAME STAGE RUN FILES...: mean over the tasks into NAME/eval/STAGE
    local name=$1 stage=$2 run=$3; shift 3
    [ -f "$out/$name/eval/$stage/summary.json" ] ||
        "$flanmoe" eval "$out/$name/$run" "$@" --threads $threads --max-new-tokens 24 --no-options --out "$out/$name/eval/$stage" > /dev/null
}
evaluations() { # NAME
    evaluate "$1" pretrain-seen pretrain "$out/world/eval/seen" || return
    evaluate "$1" pretrain-heldout pretrain "$out/world/eval/heldout" || return
    evaluate "$1" instruct-seen instruct "$out/world/eval/seen" || return
    evaluate "$1" instruct-heldout instruct "$out/world/eval/heldout" || return
    for task in "${tasks[@]}"; do
        for start in pretrain instruct; do
            evaluate "$1" "finetune-$task-from-$start" "finetune-$task-from-$start" "$out/world/finetune/$task/test.jsonl" || return
        done
    done
}

# mean NAME METRIC STAGE: over the tasks of one evaluation, in per cent.
mean() { awk -v key="\"$2\":" '/"mean"/ { inside = 1 } inside && index($0, key) { gsub(/[^0-9.eE-]/, "", $2); printf "%.1f", 100 * $2; exit }' "$out/$1/eval/$3/summary.json"; }
