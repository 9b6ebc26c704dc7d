#!/usr/bin/env bash
# The FLAN-MoE study in small: dense and sparse models of equal FLOPs per token, pretrained on text, then (i) finetuned directly, (ii) instruction-tuned and
# evaluated zero- and few-shot on held-out tasks, (iii) instruction-tuned, then finetuned; further axes: number of tasks, number of experts, freezing,
# auxiliary losses, expert dropout. Ends with a page of tables and figures: OUT/page/README.md.
#
# Usage:  run/flan_study.sh DATA OUT [SIZE=tiny]
# DATA:   the folder of the published files, laid out as configs/task names them (README of data/), and text: wikitext-2, tinyshakespeare, british-fiction, peps
#         (those of them that are there, *.txt and *.rst).
# SIZE:   probe  80 seconds: whether everything runs; the figures mean nothing
#         tiny   dense, expert choice, ST-MoE, 2.4 million active parameters, on the CPU; 93 minutes of two cores that compilers shared (run/README.md), at most 500 questions a suite
#         small  all five models, 61 million active parameters (flanmoe plan), one GPU, planned for an hour;   base  201 million, planned for a node and a night; neither has run
#         SCALE=2: twice the steps. MODELS="dense switch": other models, of which the last one, a sparse one, goes through the further axes. SEED=1. TRAIN="--set ...": options of every training.
#         CELLS="reference tasks-9": only these cells of the further axes (all: reference, tasks-9 -36 -89, experts-2 -16, freeze-gate -experts -moe -non_moe, losses-none -balance -z,
#         expert-dropout-0 -0.1 -0.4); the others show as a dash.
# Resume: give the same command again; every cell goes on where it stopped (exit code 75: stopped and saved). Finished cells are left alone.
# Needs:  python3 with matplotlib for the page's figures (Debian: python3-matplotlib).
set -euo pipefail

[ $# -ge 2 ] && [ $# -le 3 ] || { echo "usage: run/flan_study.sh DATA OUT [probe|tiny|small|base]" >&2; exit 64; }
[ -d "$1" ] || { echo "flan_study: $1 is not there; name the folder that holds the data sets" >&2; exit 66; }
python=${PYTHON:-python3}
"$python" -c "import matplotlib" 2> /dev/null || { echo "flan_study: the page needs matplotlib for $python (PYTHON names another); install Debian's python3-matplotlib" >&2; exit 69; }
data=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2") size=${3:-tiny} scale=${SCALE:-1} seed=${SEED:-1}
cd "$(dirname "$0")/.."
flanmoe=${FLANMOE:-build/flanmoe}
[ -x "$flanmoe" ] || { echo "flan_study: $flanmoe is not there; build it with make" >&2; exit 66; }
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

# width heads layers, of both stacks; steps of pretraining, instruction tuning, the axes' instruction tuning and finetuning; rows of a step; questions a suite
case $size in
    probe) width=32 heads=2 head=16 layers=2 pretrain=50 instruct=30 axis=30 finetune=3 rows=2 questions=60 device=cpu models=${MODELS:-dense st-moe} jobs=${JOBS:-$(nproc)} ;;
    tiny) width=128 heads=4 head=32 layers=4 pretrain=800 instruct=600 axis=250 finetune=150 rows=8 questions=500 device=cpu models=${MODELS:-dense expert-choice st-moe} jobs=${JOBS:-$(nproc)} ;;
    small) width=512 heads=8 head=64 layers=8 pretrain=6000 instruct=4000 axis=1000 finetune=500 rows=64 questions=1000 device=cuda models=${MODELS:-dense switch gshard expert-choice st-moe} jobs=${JOBS:-1} ;;
    base) width=768 heads=12 head=64 layers=12 pretrain=100000 instruct=25000 axis=5000 finetune=2000 rows=256 questions=2000 device=cuda models=${MODELS:-dense switch gshard expert-choice st-moe} jobs=${JOBS:-1} ;;
    *) echo "flan_study: there is no size $size; there are probe, tiny, small and base" >&2; exit 64 ;;
esac
[ "${models##* }" != dense ] || { echo "flan_study: the last of MODELS goes through the axes of sparse models, so it cannot be dense" >&2; exit 64; }
threads=$((($(nproc) + jobs - 1) / jobs))
read -ra more <<< "${TRAIN:-}"
more=(--set train.threads=$threads "${more[@]}")

say() { echo "== $*" >&2; }

vocabulary_and_text() {
    local texts=() file
    mapfile -t texts < <(find "$data"/{wikitext-2,tinyshakespeare,british-fiction,peps} -type f \( -name '*.txt' -o -name '*.rst' \) 2> /dev/null | grep -vx "$data/wikitext-2/test.txt" | LC_ALL=C sort)
    [ ${#texts[@]} -gt 0 ] || { echo "flan_study: no text below $data (wikitext-2, tinyshakespeare, british-fiction, peps)" >&2; exit 66; }
    if [ ! -f "$out/vocabulary/spiece.model" ]; then
        for file in natural_instructions t0 flan_cot gsm8k; do "$flanmoe" data tasks configs/task/$file.toml --data "$data" --split train --jsonl --count 60; done > "$out/examples.jsonl"
        "$flanmoe" tokenizer train "${texts[@]}" "$out/examples.jsonl" --key inputs --size 4000 --coverage 0.9998 --out "$out/vocabulary"
    fi
    "$flanmoe" data shard "${texts[@]}" --tokenizer "$out/vocabulary" --shard-mb 4 --out "$out/shards/train"
    "$flanmoe" data shard "$data/wikitext-2/test.txt" --tokenizer "$out/vocabulary" --out "$out/shards/validation"
    # Held-out tasks of Super-Natural-Instructions, for exact match and ROUGE-L.
    if [ ! -d "$out/held-out" ]; then
        mkdir -p "$out/held-out.part"
        "$flanmoe" data tasks configs/task/natural_instructions.toml --data "$data" --split train --jsonl --count 50 > "$out/instructions.jsonl"
        grep -o 'ni/task[0-9]*_' configs/mixture/study-held-out.toml | while read -r task; do
            grep "\"task\":\"$task" "$out/instructions.jsonl" | grep '"template":"definition"' > "$out/held-out.part/${task//[^a-z0-9]/}.jsonl"
        done
        mv "$out/held-out.part" "$out/held-out"
    fi
}

# shape MODEL: files and options of a model.
shape() {
    model=(configs/model/study.toml)
    local ffn=$((4 * width)) expert=$((2 * width)) options=()
    [ "$1" = dense ] || model+=("configs/model/study-$1.toml")
    [ "$1" != st-moe ] || ffn=$((3 * width)) expert=$width
    for option in d_model=$width heads=$heads d_kv=$head encoder_layers=$layers decoder_layers=$layers d_ff=$ffn; do options+=(--set "model.$option"); done
    case $1 in expert-choice | gshard | st-moe) options+=(--set moe.expert_d_ff=$expert) ;; esac
    model_options=("${options[@]}")
}
trained() { grep -qs '"state": "done"' "$1/status.json"; }  # to its end
# train MODEL RUN "RECIPES" options...: one stage; what has been trained to its end is left alone.
train() {
    local name=$1 run=$out/$2 recipes=() recipe
    for recipe in $3; do recipes+=("configs/recipe/$recipe.toml"); done
    shift 3
    ! trained "$run" || return 0
    say "$name: ${run#"$out/"}"
    mkdir -p "$run"
    shape "$name"
    "$flanmoe" train "${model[@]}" "${recipes[@]}" --run "$run" "${model_options[@]}" --set "data.tokenizer=$out/vocabulary" --set "data.folder=$data" --set "data.cache=$out/cache" \
        --set train.device=$device --set train.seed=$seed --set data.seed=$seed --set train.forward=bf16 --set data.batch_rows=$rows "$@" "${more[@]}" > "$run.log" 2>&1 || failed $? "$run.log"
}
pretrain() { # MODEL CELL options...
    train "$1" "$2/pretrain" study-pretrain --set "data.train=[\"$out/shards/train\"]" --set "data.validation=[\"$out/shards/validation\"]" --set train.steps=$((pretrain * scale)) "${@:3}"
}
instruct() { # MODEL CELL FROM STEPS options...
    train "$1" "$2/instruct" study-instruct --set "train.start_from=$out/$3/pretrain" --set train.steps=$(($4 * scale)) --set eval.every=$(($4 * scale / 10)) "${@:5}"
}
# finetune MODEL TASK STAGE options...: from that stage; chosen by validation, measured on the test split.
finetune() {
    train "$1" "$1/finetune-$2-from-$3" "finetune finetune/$2" --set "train.start_from=$out/$1/$3" --set train.steps=$((finetune * scale)) --set eval.every=$((finetune * scale / 3)) \
        --set data.micro_batch_rows=0 --set data.batch_rows=16 --set eval.samples=200 --set eval.test_split=test --set optimizer.learning_rate=0.005 --set train.save_every=0 --set train.keep_last=1 "${@:4}"
}
failed() { # CODE LOG
    tail -3 "$2" >&2
    say "stopped with exit code $1, see $2; the same command goes on from here"
    exit "$1"
}
asked() { # RUN EVALUATION options...
    local run=$out/$1 results=$out/$1/eval/$2
    shift 2
    [ ! -f "$results/summary.json" ] && [ ! -f "$results/routing.json" ] || return 0
    say "evaluation ${results#"$out/"}"
    mkdir -p "$results"
    "$flanmoe" eval "$run" --device $device --dtype bf16 --threads $threads --out "$results" "$@" > "$results.log" 2>&1 || failed $? "$results.log"
}
# The four suites of FLAN-MoE's average, at most so many questions of each (of 57 subjects, 27 sub-tasks, 4 sets, the sets of questions that are there), the few-shot
# ones without exemplars too; and the held-out instructions. Where options are given they are scored by likelihood.
suites() { # RUN [short]: the axes leave out the zero-shot ones
    local qa=() set shots number options=(--data "$data" --max-input-tokens 1024 --too-long drop)
    for set in boolq:glue-superglue-small commonsenseqa:commonsenseqa arc_easy:arc arc_challenge:arc openbookqa:openbookqa; do [ ! -d "$data/${set#*:}" ] || qa+=("${set%:*}"); done
    [ ${#qa[@]} -gt 0 ] || { say "no file of the qa suite below $data (glue-superglue-small, commonsenseqa, arc, openbookqa)"; exit 66; }
    for shots in few zero; do
        [ "$shots $2" != 'zero short' ] || continue
        number=(); [ $shots = few ] || number=(--shots 0)
        asked "$1" mmlu-$shots "${options[@]}" --suite mmlu/direct --score likelihood --no-generation --limit $((questions / 57)) "${number[@]}"
        asked "$1" bbh-$shots "${options[@]}" --suite bbh/direct --score likelihood --max-new-tokens 24 --limit $((questions / 27)) "${number[@]}"
    done
    asked "$1" reasoning "${options[@]}" --suite reasoning --max-new-tokens 96 --limit $((questions / 4))
    asked "$1" qa "${options[@]}" --suite qa --only "$(IFS=,; echo "${qa[*]}")" --score likelihood --no-generation --limit $((questions / ${#qa[@]}))
    asked "$1" held-out "$out/held-out" --max-input-tokens 1024 --max-new-tokens 48 --no-options
}

# Finetuning tasks: FLAN-MoE's CondaQA, CxC, PubmedQA and SearchQA where their files are; SICK stands in for CxC, whose captions are COCO's, and RTE makes four.
finetuning() { # MODEL STAGE
    if [ -f "$data/condaqa/condaqa_train.json" ]; then finetune "$1" condaqa "$2"; else finetune "$1" condaqa "$2" --set 'data.only=["condaqa/dev"]'; fi
    if [ -f "$data/cxc/captions_val2014.json" ]; then finetune "$1" cxc "$2"; else finetune "$1" sick "$2"; fi
    finetune "$1" pubmedqa "$2"
    if [ -d "$data/searchqa" ]; then finetune "$1" searchqa "$2"; else finetune "$1" rte "$2" --set data.mixture=configs/task/superglue.toml --set 'data.only=["superglue/rte"]' --set data.validation_split=validation --set eval.test_split=; fi
}
main_cell() { # MODEL
    shape "$1"
    mkdir -p "$out/$1"
    "$flanmoe" plan "${model[@]}" configs/recipe/study-pretrain.toml "${model_options[@]}" --json > "$out/$1/plan.json"
    pretrain "$1" "$1"
    suites "$1/pretrain" short
    instruct "$1" "$1" "$1" $instruct
    suites "$1/instruct" long
    local trace=("$out/held-out" --routing-trace --max-input-tokens 512 --routing-capacity training)
    [ "$1" = dense ] || asked "$1/pretrain" routing "${trace[@]}"
    [ "$1" = dense ] || asked "$1/instruct" routing "${trace[@]}" --routing-drift "$out/$1/pretrain"
    finetuning "$1" pretrain
    finetuning "$1" instruct
}
wanted() { [ -z "${CELLS-}" ] || [[ " $CELLS " = *" $1 "* ]]; }  # CELL
axis_cell() { # CELL FROM options...: the last of the models, instruction-tuned otherwise and for fewer steps; the suites few-shot
    instruct "${models##* }" "axes/$1" "$2" $axis "${@:3}"
    suites "axes/$1/instruct" short
}
experts_cell() { # EXPERTS
    pretrain "${models##* }" "axes/experts-$1" --set "moe.experts=$1" --set "moe.eval_capacity_factor=$1.0"
    axis_cell "experts-$1" "axes/experts-$1" --set "moe.experts=$1" --set "moe.eval_capacity_factor=$1.0"
}

# at_once COMMAND...: as one of `jobs`.
at_once() {
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || stop $?; done
    "$@" &
}
stop() { # CODE: the others save and end
    trap '' TERM INT
    for job in $(jobs -rp); do kill -TERM -- "-$job" 2> /dev/null || true; done
    wait
    exit "$1"
}
set -m  # every job a process group, which a signal reaches as a whole
trap 'stop 75' TERM INT

vocabulary_and_text
last=${models##* }
for name in $models; do at_once main_cell "$name"; done
for experts in 2 16; do ! wanted experts-$experts || at_once experts_cell $experts; done
until trained "$out/$last/pretrain"; do wait -n || stop $?; done
further() { ! wanted "$1" || at_once axis_cell "$1" "$last" "${@:2}"; } # CELL options...
further reference
for count in 9 36 89; do further "tasks-$count" --set data.tasks=$count; done
for part in gate experts moe non_moe; do further "freeze-$part" --set "train.freeze=[\"$part\"]"; done
further losses-none --set train.balance_loss=0 --set train.router_z_loss=0
further losses-balance --set train.balance_loss=0.01 --set train.router_z_loss=0
further losses-z --set train.balance_loss=0 --set train.router_z_loss=0.001
for rate in 0 0.1 0.4; do further "expert-dropout-$rate" --set moe.expert_dropout=$rate; done
while [ -n "$(jobs -rp)" ]; do wait -n || stop $?; done

"$python" run/flan_study_page.py "$out" $size "$models"
say "the page is $out/page/README.md"
