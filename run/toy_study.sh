#!/usr/bin/env bash
# The study in small: dense, Switch, GShard, expert choice and ST-MoE at equal FLOPs per token on the toy world, three seeds each: pretraining loss, exact
# match after instruction tuning on seen and held-out families, and direct finetuning against finetuning after instruction tuning.
#
# Usage:    run/toy_study.sh [OUT=runs/toy-study]   (SEEDS="1 2 3"; SCALE=1: times as many steps; JOBS: models at a time, default one a core)
# Cost:     100 minutes on 2 cores beside compilers (not timed alone), 0.3 GB of memory, 1.2 GB of disk. Interrupted, the same command goes on where it was.
# Expected: the table in run/README.md, means and standard deviations over the seeds.
set -euo pipefail
cd "$(dirname "$0")/.."
study=${1:-runs/toy-study} seeds=${SEEDS:-1 2 3} scale=${SCALE:-1} jobs=${JOBS:-$(nproc)} threads=1
flanmoe=${FLANMOE:-build/flanmoe}
source run/toy_stages.sh

models=(dense switch gshard expert-choice st-moe)
for seed in $seeds; do
    out=$study/seed-$seed
    make_world
done

one() { # SEED MODEL
    seed=$1 out=$study/seed-$1
    local files=(toy.toml)
    [ "$2" = dense ] || files+=("toy-$2.toml")
    say "seed $1: $2"
    { stages "$2" "${files[@]}" && evaluations "$2"; } > "$out/$2.log" 2>&1 || { local code=$?; say "seed $1, $2: ended with exit code $code, see $out/$2.log"; return $code; }
}

status=0
for seed in $seeds; do
    for model in "${models[@]}"; do
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || status=$?; done
        [ $status -eq 0 ] || break 2
        one "$seed" "$model" &
    done
done
while [ -n "$(jobs -rp)" ]; do wait -n || status=$?; done
[ $status -eq 0 ] || { say "stopped with exit code $status; the same command goes on from here"; exit $status; }

# value SEED MODEL COLUMN
value() {
    out=$study/seed-$1
    case $3 in
        pretraining) grep '"kind":"validation"' "$out/$2/pretrain/metrics.jsonl" | tail -1 | sed 's/.*"loss":\([0-9.eE+-]*\).*/\1/' ;;
        direct | tuned)
            local start=pretrain task
            [ "$3" = direct ] || start=instruct
            for task in "${tasks[@]}"; do mean "$2" exact_match "finetune-$task-from-$start"; echo; done | awk '{ s += $1 } END { printf "%.2f", s / NR }' ;;
        *) mean "$2" exact_match "$3" ;;
    esac
}
column() { # MODEL COLUMN DIGITS: mean and standard deviation over the seeds
    for seed in $seeds; do value "$seed" "$1" "$2"; echo; done |
        awk -v d="$3" 'NF { s += $1; q += $1 * $1; ++n } END { m = s / n; v = n > 1 ? (q - n * m * m) / (n - 1) : 0; printf "%.*f ± %.*f", d, m, d, sqrt(v > 0 ? v : 0) }'
}
{
    echo "Toy world, seeds $seeds: mean ± standard deviation; exact match on held-out instances in per cent"
    echo
    echo "| model | pretraining loss | instruction-tuned, 69 seen families | 8 held-out families | finetuned directly, 3 tasks | finetuned after instruction tuning |"
    echo "|---|---|---|---|---|---|"
    for model in "${models[@]}"; do
        echo "| $model | $(column "$model" pretraining 3) | $(column "$model" instruct-seen 1) | $(column "$model" instruct-heldout 1) | $(column "$model" direct 1) | $(column "$model" tuned 1) |"
    done
} | tee "$study/table.md"
