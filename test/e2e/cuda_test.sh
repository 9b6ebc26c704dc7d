# Training, evaluation and generation with --device cuda on the simulator (build/flanmoe-sim), or with the program that FLANMOE_CUDA names on a GPU: the CPU's
# losses and routing, the same bits again, and after a stop.
SIM=${FLANMOE_CUDA:-$(dirname "$FLANMOE")/flanmoe-sim}
[ -x "$SIM" ] || { fault "$SIM is not built"; return; }
tiny_world
on_cuda() { FLANMOE=$SIM "$@" --device cuda; }
# What the routers did at the first step, which rounding has not reached yet.
first_routing() { grep -m1 '"kind":"train"' "$1/metrics.jsonl" | grep -oE '"[^"]*(dropped|utilization|expert_load)":[^,}]*'; }

short=(--set train.steps=20 --set eval.every=0)
for objective in span instruct; do
    ends 0 $objective.toml $objective-cpu "${short[@]}"
    on_cuda ends 0 $objective.toml $objective-cuda "${short[@]}"
    close $objective-cpu $objective-cuda 1e-4
    diff <(first_routing $objective-cpu) <(first_routing $objective-cuda) > routing.diff || fault "routing at the first step of $objective differs" routing.diff
done

# The same bits again, and after a stop: dropout, jitter, packing, accumulation and the optimizer's state come back. Without a graph, and with activations computed again, they are the same too.
on_cuda ends 75 span.toml halves "${short[@]}" --max-steps 7
on_cuda ends 0 span.toml halves "${short[@]}" --set train.cuda_graph=false --set train.recompute='"full"'
same_run span-cuda halves

# bf16; and weights and state of one device on the other: a stage that starts from the other stage's checkpoint.
ends 0 span.toml bf16-cpu --set train.dtype='"bf16"' "${short[@]}" --set train.steps=10
on_cuda ends 0 span.toml bf16-cuda --set train.dtype='"bf16"' "${short[@]}" --set train.steps=10
close bf16-cpu bf16-cuda 1e-2
moved=(--set train.start_from='"span-cuda"' --set train.reset_optimizer=false "${short[@]}" --set train.steps=6)
ends 0 span.toml moved-cpu "${moved[@]}"
on_cuda ends 0 span.toml moved-cuda "${moved[@]}"
close moved-cpu moved-cuda 1e-4
# A run that changes the device on its way, and what the device holds at once: the curve of the run that stayed.
ends 75 span.toml there-and-back "${short[@]}" --max-steps 7
on_cuda ends 75 span.toml there-and-back "${short[@]}" --max-steps 6 --set data.micro_batch_rows=4
grep -q 'changed since this run began: data.micro_batch_rows was 2 and is 4; .*train.device was "cpu" and is "cuda"' there-and-back.log || fault 'nothing says what has changed' there-and-back.log
grep -q 'resuming at step 7' there-and-back.log || fault 'it does not go on where the CPU stopped' there-and-back.log
ends 0 span.toml there-and-back "${short[@]}"
close span-cpu there-and-back 1e-4

# Two ranks that share the device (staged through host memory): rows, experts or every matrix divided.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
on_cuda ends 0 span.toml alone --set train.steps=8 --set eval.every=0
for axis in data expert tensor; do
    timeout 120 mpirun -q --oversubscribe -n 2 "$SIM" train span.toml --run $axis-ranks --device cuda --set parallel.$axis=2 --set train.steps=8 --set eval.every=0 > $axis.log 2>&1 < /dev/null ||
        fault "two $axis ranks: exit code $?" $axis.log
    close alone $axis-ranks 1e-5
done
timeout 120 mpirun -q --oversubscribe -n 4 "$SIM" train span.toml --run four-ranks --device cuda --set parallel.data=2 --set parallel.tensor=2 --set train.steps=8 --set eval.every=0 > four.log 2>&1 < /dev/null ||
    fault "four ranks: exit code $?" four.log
close alone four-ranks 1e-5
grep -q 'over MPI, staged through host memory' data.log || fault 'nothing says how ranks exchange tensors' data.log
grep -q 'steps are not recorded as CUDA graphs: ranks that share a GPU' data.log || fault 'nothing says why steps are not graphs' data.log

# The same over NCCL, where the simulator pretends that each has a device of its own.
if grep -q cudasim "$SIM"; then
    for axis in data expert tensor; do
        FLANMOE_SIM_DEVICES=2 FLANMOE_SIM_NCCL=$PWD/nccl timeout 120 mpirun -q --oversubscribe -n 2 "$SIM" train span.toml --run $axis-nccl --device cuda --set parallel.$axis=2 --set train.steps=8 \
            --set eval.every=0 > $axis.log 2>&1 < /dev/null || fault "two $axis ranks over NCCL: exit code $?" $axis.log
        close alone $axis-nccl 1e-5
        grep -q 'ranks exchange tensors over NCCL' $axis.log || fault 'not over NCCL' $axis.log
        if grep -q 'not recorded as CUDA graphs' $axis.log; then fault "steps of $axis ranks over NCCL are no graphs" $axis.log; fi
    done
fi

# Evaluation and generation of one checkpoint on both devices.
task=$(find toy/instruct/valid -name '*.jsonl' | sort | head -1)
for device in cpu cuda; do
    "$SIM" eval instruct-cuda "$task" --device $device --json --limit 4 > eval-$device.json 2> eval.log || fault "eval --device $device" eval.log
    "$SIM" generate instruct-cuda --prompt 'reverse: one two three' --prompt 'sum: 1 and 2' --temperature 1 --seed 3 --max-new-tokens 8 --jsonl --device $device > sampled-$device.txt 2> generate.log ||
        fault "generate --device $device" generate.log
    "$SIM" generate instruct-cuda --prompt 'reverse: one two three' --beams 3 --max-new-tokens 6 --jsonl --device $device > beams-$device.txt 2>> generate.log || fault "generate --beams --device $device" generate.log
done
tokens() { grep -o '"tokens":[^]]*' "$1"; }
[ "$(tokens sampled-cpu.txt | tr -cd , | wc -c)" -gt 6 ] || fault 'generation made hardly a token' sampled-cpu.txt
for kind in sampled beams; do diff <(tokens $kind-cpu.txt) <(tokens $kind-cuda.txt) > tokens.diff || fault "CPU and CUDA generate different tokens ($kind)" tokens.diff; done
diff <(grep -v '"loss"\|"milliseconds\|seconds"' eval-cpu.json) <(grep -v '"loss"\|"milliseconds\|seconds"' eval-cuda.json) > eval.diff || fault 'CPU and CUDA evaluate differently' eval.diff
# The same of two ranks that share experts.
two=(timeout 120 mpirun -q --oversubscribe -n 2 "$SIM")
"${two[@]}" eval instruct-cuda "$task" --device cuda --json --limit 4 --set parallel.expert=2 > eval-ranks.json 2> eval.log < /dev/null || fault 'eval on two ranks' eval.log
"${two[@]}" generate instruct-cuda --prompt 'reverse: one two three' --prompt 'sum: 1 and 2' --temperature 1 --seed 3 --max-new-tokens 8 --jsonl --device cuda --set parallel.expert=2 \
    > sampled-ranks.txt 2> generate.log < /dev/null || fault 'generate on two ranks' generate.log
diff <(grep -v '"loss"\|"milliseconds\|seconds"' eval-cuda.json) <(grep -v '"loss"\|"milliseconds\|seconds"' eval-ranks.json) > eval.diff || fault 'two ranks evaluate differently' eval.diff
diff <(tokens sampled-cuda.txt) <(tokens sampled-ranks.txt) > tokens.diff || fault 'two ranks generate different tokens' tokens.diff

# Every recorded case that has a device side (train-dense in f32 is beyond single precision: test/README.md), and what --device refuses.
for case in "$ROOT"/test/oracle/*/; do
    case $case in */train-dense/) continue ;; esac
    "$SIM" parity "$case" --device cuda --dtype f32 > parity.log 2>&1 || fault "parity --device cuda $(basename "$case")" parity.log
done
"$SIM" parity "$ROOT/test/oracle/t5-v11" --device cuda --dtype bf16 > parity.log 2>&1 || fault 'parity --device cuda t5-v11 in bf16' parity.log
grep -q cudasim "$SIM" || return 0  # a GPU does not pretend
refused() { # CODE TEXT command...
    local code=$1 text=$2
    shift 2
    "$@" > refused.log 2>&1
    [ $? = "$code" ] && grep -q "$text" refused.log || fault "$*: expected exit code $code and \"$text\"" refused.log
}
parity=("$SIM" parity "$ROOT/test/oracle/t5-one" --device cuda)
refused 69 'no NVIDIA driver' env FLANMOE_SIM_DRIVER=0 "${parity[@]}"
refused 69 'no CUDA device\|no GPU' env FLANMOE_SIM_DEVICES=0 "${parity[@]}"
refused 69 'compute capability 7.0' env FLANMOE_SIM_ARCH=70 "${parity[@]}"
refused 64 'not a number' env FLANMOE_SIM_DRIVER=new "$SIM" generate instruct-cuda --prompt text --device cuda
refused 71 'out of memory' env FLANMOE_SIM_MEMORY=100000 "${parity[@]}"
refused 64 'f64 runs on the CPU alone' "${parity[@]}" --dtype f64
