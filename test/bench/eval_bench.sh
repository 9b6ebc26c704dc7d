#!/bin/bash
# Speed of evaluation: CommonsenseQA's questions (prompts of about 50 tokens) in batches beside one at a time, generated answers and scores of the five options, T5-small's shape and a
# decoder-only model of its width, untrained, which never end an answer early.
#
# Usage:    test/bench/eval_bench.sh [DATA [ROUNDS [QUESTIONS]]]      DATA: the folder of the published sets (FLANMOE_DATA, ../shared/data); needs python3
# Prints:   of each way the median over the rounds, in turn, of processor seconds (least, most), without those of one question; and how many times as long one at a time takes.
# Expect:   at least 4 for generation, and for options beside one option at a time.
cd "$(dirname "$0")/../.." || exit 1
data=$(realpath "${1:-${FLANMOE_DATA:-../shared/data}}") rounds=${2:-3} questions=${3:-100} root=$PWD
flanmoe=$(realpath "${FLANMOE:-build/flanmoe}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
export OMP_WAIT_POLICY=passive
{
    "$flanmoe" tokenizer train "$data/wikitext-2/valid.txt" --size 8000 --out vocabulary && "$flanmoe" data shard "$data/wikitext-2/valid.txt" --tokenizer vocabulary --out shards &&
        "$flanmoe" eval --suite qa --only commonsenseqa --data "$data" --prompts prompts.jsonl
} > log 2>&1 || { tail -3 log; exit 1; }
# The questions; and every option as a question with that option alone.
python3 - "$questions" << 'END'
import json, sys
with open("whole.jsonl", "w") as whole, open("apart.jsonl", "w") as apart:
    for line in list(open("prompts.jsonl"))[:int(sys.argv[1])]:
        q = json.loads(line)
        for file, lists in ((whole, [q["choices"]]), (apart, [[c] for c in q["choices"]])):
            for options in lists: print(json.dumps({"inputs": q["prompt"], "targets": options[0], "options": options}), file=file)
END
head -1 whole.jsonl > one.jsonl
run=(--set model.vocab_size=8192 --set data.tokenizer=vocabulary --set 'data.train=["shards"]' --set train.steps=1 --set data.batch_rows=2 --set train.save_every=0 --set train.tensorboard=false
    --set optimizer.warmup_steps=0 --set optimizer.schedule=constant)
"$flanmoe" train "$root/configs/model/t5-small.toml" "${run[@]}" --set data.encoder_length=64 --run encoder-decoder > log 2>&1 || { tail -3 log; exit 1; }
"$flanmoe" train "$root/configs/model/t5-small.toml" "${run[@]}" --set model.encoder_decoder=false --set model.encoder_layers=0 --set data.objective=prefix_lm --set data.encoder_length=0 \
    --set data.decoder_length=64 --run decoder-only > log 2>&1 || { tail -3 log; exit 1; }

seconds() { # MODEL FILE options...: processor seconds
    local model=$1 file=$2 TIMEFORMAT='%U %S'
    shift 2
    { time "$flanmoe" eval "$model" "$file" --no-loss "$@" > log 2>&1; } 2>&1 | awk '{print $1 + $2}'
}
generate=(--no-options --max-new-tokens 32) score=(--no-generation)
for model in encoder-decoder decoder-only; do
    ways=(generation:whole "generation, one question at a time:whole" options:whole "options, one question with its five at a time:whole" "options apart:apart" "options apart, one at a time:apart")
    for ((round = 0; round < rounds; round++)); do
        for way in "${ways[@]}"; do
            name=${way%:*} options=(--threads 1)
            case $name in generation*) options+=("${generate[@]}") ;; *) options+=("${score[@]}") ;; esac
            case $name in *'at a time') options+=(--batch 1) ;; esac
            echo "$name:$(seconds $model "${way#*:}.jsonl" "${options[@]}"):$(seconds $model one.jsonl "${options[@]}")"
        done
    done > times.txt
    python3 - "$model" "$questions" << 'END'
import statistics, sys
times = {}
for line in open("times.txt"):
    name, all_of_it, one = line.rsplit(":", 2)
    times.setdefault(name, []).append(float(all_of_it) - float(one))
median = {name: statistics.median(values) for name, values in times.items()}
for name, values in times.items():
    beside = next((median[name] / median[base] for base in (name.removesuffix(", one question at a time"), "options") if name != base and base in median and base.split()[0] == name.split(",")[0].split()[0]), None)
    print(f"{sys.argv[1]}, {sys.argv[2]} questions, {name}: {median[name]:.2f} s ({min(values):.2f}, {max(values):.2f})" + (f", {beside:.1f} times as long" if beside else ""))
END
done
