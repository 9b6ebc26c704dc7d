# What the end-to-end tests of training share: a tiny world, a model that makes a step in milliseconds, and comparisons of runs.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
SHIM=$(dirname "$FLANMOE")/faults.so

# toy/, vocabulary/, shards/, and span.toml and instruct.toml: a Switch model with dropout, jitter, packing and two micro-batches a step.
tiny_world() {
    "$FLANMOE" data toyworld --out toy --train 50 --validation 2 --test 2 --finetune 10 --documents 200 > world.log 2>&1 &&
        "$FLANMOE" tokenizer train toy/vocabulary.txt --size 400 --out vocabulary >> world.log 2>&1 &&
        "$FLANMOE" data shard toy/corpus --tokenizer vocabulary --out shards >> world.log 2>&1 || fault 'the tiny world could not be made' world.log
    cat > model.toml << 'END'
[model]
vocab_size = 512
d_model = 32
d_kv = 8
heads = 4
d_ff = 64
encoder_layers = 2
decoder_layers = 2
activation = "relu"
dropout = 0.1
[moe]
experts = 4
router = "switch"
every = 2
[data]
tokenizer = "vocabulary"
encoder_length = 64
batch_rows = 4
micro_batch_rows = 2
validation_batches = 2
[train]
steps = 40
log_every = 1
save_every = 10
save_minutes = 0
tensorboard = false
[optimizer]
learning_rate = 0.01
warmup_steps = 5
schedule = "linear"
[eval]
every = 20
END
    sed 's|^\[data\]|[data]\ntrain = ["shards"]\nvalidation = ["shards"]|' model.toml > span.toml
    sed 's|^\[data\]|[data]\nobjective = "instruct"\ndecoder_length = 32\ntrain = ["toy/instruct/train"]\nvalidation = ["toy/instruct/valid"]|' model.toml > instruct.toml
}

# A failure, with the end of a log.
fault() {
    printf '  %s\n' "$1"
    [ -z "${2-}" ] || tail -3 "$2" | cut -c1-200 | sed 's/^/    | /'
    failures=$((failures + 1))
}

# train CONFIG RUN options...: output goes to RUN.log, which is begun anew; the exit code is the program's.
train() {
    local config=$1 run=$2
    shift 2
    "$FLANMOE" train "$config" --run "$run" "$@" > "$run.log" 2>&1 < /dev/null
}

# ends CODES CONFIG RUN options...: the same, and the exit code must match the regular expression.
ends() {
    local codes=$1 status
    shift
    train "$@"
    status=$?
    [[ $status =~ ^($codes)$ ]] || fault "train $*: exit code $status, expected $codes" "$2.log"
}

last_checkpoint() { find "$1/checkpoints" -maxdepth 1 -name 'step-*' | sort | tail -1; }

# All figures of a run that do not depend on the clock.
figures() { sed -E 's/"(tokens_per_second|flops_per_second|peak_share|seconds_per_step|data_wait_seconds)":[^,}]*,?//g' "$1/metrics.jsonl"; }

# Two runs ended in the same bits, with the same losses on the way.
same_run() {
    local a b file
    a=$(last_checkpoint "$1") b=$(last_checkpoint "$2")
    for file in model.safetensors training/optimizer.safetensors training/state.json; do
        cmp -s "$a/$file" "$b/$file" || fault "$a/$file and $b/$file differ" "$2.log"
    done
    diff <(figures "$1") <(figures "$2") > metrics.diff || fault "the metrics of $1 and $2 differ" metrics.diff
}

# Every checkpoint of a run holds what its manifest says.
all_valid() {
    local checkpoint
    for checkpoint in "$1"/checkpoints/step-*; do
        [ ! -e "$checkpoint" ] || "$FLANMOE" inspect --verify "$checkpoint" > verify.log 2>&1 || fault "$checkpoint is damaged ($2)" verify.log
    done
}

# The weights of a run's newest checkpoint hold no NaN and no infinity.
all_finite() {
    local checkpoint
    checkpoint=$(last_checkpoint "$1")
    "$FLANMOE" inspect --stats --json "$checkpoint" > stats.log 2>&1 || fault "inspect --stats $checkpoint" stats.log
    [ "$(grep -o '"non_finite": [0-9]*' stats.log | sort -u)" = '"non_finite": 0' ] || fault "$checkpoint holds values that are not finite"
}

# wait_for RUN N: until the run has recorded N steps (at most 60 seconds).
wait_for() {
    local i
    for ((i = 0; i < 6000; i++)); do
        [ "$(grep -c '"kind":"train"' "$1/metrics.jsonl" 2> /dev/null)" -ge "$2" ] 2> /dev/null && return
        sleep 0.01
    done
}

# The losses of a run's steps.
losses() { grep '"kind":"train"' "$1/metrics.jsonl" | grep -o '"loss":[^,}]*' | cut -d: -f2; }

# close RUN OTHER TOLERANCE: as many losses, each within a relative tolerance.
close() {
    paste <(losses "$1") <(losses "$2") | awk -v t="$3" 'NF != 2 { bad = 1 } { d = $1 > $2 ? $1 - $2 : $2 - $1; if (d > t * $1) bad = 1; if (d / $1 > m) m = d / $1 } END { print m; exit bad || NR == 0 }' > close.log ||
        fault "the losses of $1 and $2 differ by $(cat close.log), allowed is $3"
}
