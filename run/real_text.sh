#!/bin/bash
# The whole path on real text: vocabulary, span corruption, instruction tuning and evaluation of a small Switch model (8 experts).
#
# Usage:    run/real_text.sh DATA OUT [train options, e.g. --set train.threads=2]
# DATA:     a folder with wikitext-2, tinyshakespeare, british-fiction, us-speeches, peps (text), t0-p3 (prompt/completion) and gsm8k (question/answer).
# Cost:     about 31 minutes on two free cores (run/README.md), under 1 GB of memory, 0.5 GB of disk.
# Expect:   validation loss that falls throughout both stages; curve and table of a recorded run are in run/README.md.
# Resume:   give the same command again; every stage goes on where it stopped (exit code 75: stopped and saved).
# Held out: wikitext-2/test.txt from pretraining; from instruction tuning every 20th prompt of t0-p3 for validation and another for the evaluation,
#           every 40th question of gsm8k/train for validation, and gsm8k/test (first 100 for the evaluation).
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: run/real_text.sh DATA OUT [train options]" >&2; exit 64; }
data=$1 out=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
flanmoe=${FLANMOE:-$root/build/flanmoe}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

[ -x "$flanmoe" ] || { echo "real_text: $flanmoe is not there; build it with make" >&2; exit 66; }
for folder in wikitext-2 tinyshakespeare british-fiction us-speeches peps t0-p3 gsm8k; do
    [ -d "$data/$folder" ] || { echo "real_text: $data/$folder is not there; name the folder that holds the data sets" >&2; exit 66; }
done
mkdir -p "$out"

# Text. Six addresses are cp1252, all else is UTF-8; wikitext-2/test.txt is kept for validation.
cp1252=(inaugural/2005-Bush.txt state_union/{1954-Eisenhower,1970-Nixon,1971-Nixon,1972-Nixon,1974-Nixon}.txt)
cp1252=("${cp1252[@]/#/$data/us-speeches/}")
mapfile -t utf8 < <(find "$data"/{wikitext-2,tinyshakespeare,british-fiction,us-speeches,peps} -type f \( -name '*.txt' -o -name '*.rst' \) |
    grep -vxF "$data/wikitext-2/test.txt" | grep -vxFf <(printf '%s\n' "${cp1252[@]}") | LC_ALL=C sort)

if [ ! -f "$out/vocabulary/spiece.model" ]; then
    "$flanmoe" tokenizer train "${utf8[@]}" --size 8000 --out "$out/vocabulary"
fi
"$flanmoe" data shard "${utf8[@]}" --tokenizer "$out/vocabulary" --shard-mb 4 --out "$out/shards/utf8"
"$flanmoe" data shard "${cp1252[@]}" --encoding cp1252 --tokenizer "$out/vocabulary" --out "$out/shards/cp1252"
"$flanmoe" data shard "$data/wikitext-2/test.txt" --tokenizer "$out/vocabulary" --out "$out/shards/validation"

# Tasks. All t0-p3 templates over one data set become one file. Lines with the same prompt stay on one side: of every 20 different prompts
# one is for validation and one for the evaluation.
if [ ! -f "$out/instruct/done" ]; then
    rm -rf "$out/instruct"
    mkdir -p "$out/instruct"/{train,valid,test}
    for set in common_gen commonsense_qa cosmos_qa dbpedia_14 kilt_tasks_hotpotqa paws qasc quartz ropes sciq wiki_bio; do
        cat "$data/t0-p3/$set"_*.jsonl | awk -F'", "completion": "' -v set="$set" -v out="$out/instruct" '
            !($1 in side) { side[$1] = n % 20 == 9 ? "valid" : n % 20 == 19 ? "test" : "train"; ++n }
            { print > (out "/" side[$1] "/" set ".jsonl") }'
    done
    awk -v out="$out/instruct" '{ print > (out "/" (NR % 40 == 0 ? "valid" : "train") "/gsm8k.jsonl") }' "$data/gsm8k/train.jsonl"
    head -100 "$data/gsm8k/test.jsonl" > "$out/instruct/test/gsm8k.jsonl"
    touch "$out/instruct/done"
fi

configs=$root/configs
"$flanmoe" train "$configs/model/real-switch.toml" "$configs/recipe/real-pretrain.toml" --run "$out/pretrain" \
    --set data.tokenizer="$out/vocabulary" --set data.train="[\"$out/shards/utf8\", \"$out/shards/cp1252\"]" \
    --set data.validation="[\"$out/shards/validation\"]" "$@"

"$flanmoe" train "$configs/model/real-switch.toml" "$configs/recipe/real-instruct.toml" --run "$out/instruct-tuned" \
    --set data.tokenizer="$out/vocabulary" --set data.train="[\"$out/instruct/train\"]" --set data.validation="[\"$out/instruct/valid\"]" \
    --set train.start_from="$out/pretrain" --set train.reset_optimizer=true "$@"

# Evaluation on held-out instances, after and before instruction tuning.
for stage in instruct-tuned pretrain; do
    [ -f "$out/eval/$stage/table.txt" ] ||
        "$flanmoe" eval "$out/$stage" "$out/instruct/test" --out "$out/eval/$stage" --dtype bf16 --inputs-key prompt --inputs-key question --targets-key completion \
            --targets-key answer --remove-suffix '<|endoftext|>' --max-input-tokens 384 --max-target-tokens 192 --max-new-tokens 64 > /dev/null
    echo "$stage:"
    cat "$out/eval/$stage/table.txt"
done
