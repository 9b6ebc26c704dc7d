#!/bin/bash
# All that is proved of CUDA, on a GPU: make gpu-test, or this script in the folder that make bundle packs, on a machine with a GPU and nothing else of ours.
#
#   test/gpu/test.sh                   # about 20 minutes on a GPU; the last line says whether all passed
#   test/gpu/test.sh ops oracle        # these parts: ops models oracle training ranks curve sanitizer
#
# ops: every operation's case table. models: gradients of whole models by parameter, against the CPU's. oracle: the recorded cases in f32. training: curves of
# 20 steps beside the CPU's, the same bits again and after a stop, evaluation and generation. ranks: NCCL with one rank; two and four ranks that share the GPU.
# curve: 200 steps. sanitizer: compute-sanitizer (memcheck, racecheck, initcheck, synccheck) on some of all that, where it is installed.
#
# FLANMOE and FLANMOE_TEST name the programs. With build/flanmoe-sim and build/flanmoe-sim-test all this runs on the simulator, without a GPU. TABLES: which
# suites of operations ('ops/*'). Exit codes: 0 all passed, 1 something failed, 69 there is no GPU.
cd "$(dirname "$0")/../.." || exit 1
FLANMOE=$(realpath "${FLANMOE:-build/flanmoe}") FLANMOE_TEST=$(realpath "${FLANMOE_TEST:-build/flanmoe-test}") TABLES=${TABLES:-ops/*}
export FLANMOE FLANMOE_TEST FLANMOE_CUDA=$FLANMOE
[ $# -gt 0 ] || set -- ops models oracle training ranks curve sanitizer
log=$(mktemp) failed=() without=
trap 'rm -f "$log" "$log.tables"' EXIT

"$FLANMOE" parity test/oracle/t5-one --device cuda > "$log" 2>&1
status=$?
if [ $status = 69 ]; then
    sed 's/^.*t5-one: //; s/^flanmoe: //' "$log"
    exit 69
fi
if [ $status != 0 ]; then
    cat "$log"
    exit 1
fi
if grep -q cudasim "$FLANMOE"; then
    echo "on the simulator"
else
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2> /dev/null | head -1
fi

# part NAME COMMAND...: its last lines if it fails.
part() {
    local name=$1 began=$SECONDS
    shift
    if "$@" > "$log" 2>&1; then
        echo "ok      $name ($((SECONDS - began)) s)"
        grep '^ .*relative difference\|^ *of the first' "$log"
    else
        echo "FAILED  $name ($((SECONDS - began)) s): $*"
        tail -40 "$log" | sed 's/^/    | /'
        failed+=("$name")
    fi
}

# tables SUITES [checker...]: they read and write tensors on the host, so in managed memory, with every kernel waited for. No suite at all is a failure.
tables() {
    local suites=$1
    shift
    FLANMOE_CUDA_MANAGED=1 CUDA_LAUNCH_BLOCKING=1 "$@" "$FLANMOE_TEST" --device cuda -ts="$suites" > "$log.tables" 2>&1
    local status=$?
    cat "$log.tables"
    grep -qE 'test cases: +[1-9]' "$log.tables" && return $status
    echo "no test ran"
    return 1
}

sanitize() {
    if ! command -v compute-sanitizer > /dev/null; then
        echo "absent  compute-sanitizer is not installed here (it comes with the CUDA toolkit)"
        without=', without the sanitizer'
        return
    fi
    local tool suite
    for tool in memcheck racecheck synccheck; do
        for suite in ops/norm ops/route ops/attention ops/matmul ops/cross_entropy ops/optimizer ops/embedding ops/dispatch; do
            part "$tool $suite" tables "$suite" timeout 1200 compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 1
        done
    done
    for tool in memcheck initcheck; do
        part "$tool gshard" timeout 1200 compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 1 "$FLANMOE" parity test/oracle/gshard --device cuda
    done
}

for wanted; do
    case $wanted in
        ops) part "tables of operations ($TABLES)" tables "$TABLES" ;;
        models) part 'gradients of whole models' tables 'model/device' ;;
        oracle)
            for case in test/oracle/*/; do
                case $case in */train-dense/) continue ;; esac  # beyond single precision: test/README.md
                part "parity $(basename "$case") f32" "$FLANMOE" parity "$case" --device cuda --dtype f32
            done
            ;;
        training) part 'training, evaluation and generation beside the CPU' test/cli/run.sh test/e2e/cuda_test.sh ;;
        ranks)
            part 'NCCL with one rank' "$FLANMOE_TEST" --device cuda -ts='comm/device_ranks'
            part 'two and four ranks on one GPU' test/cli/run.sh test/gpu/ranks_test.sh
            ;;
        curve) part 'a curve of 200 steps beside the CPU' test/cli/run.sh test/gpu/curve_test.sh ;;
        sanitizer) sanitize ;;
        *)
            echo "$wanted: unknown part; there are ops, models, oracle, training, ranks, curve, sanitizer"
            exit 64
            ;;
    esac
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
echo "all passed$without"
