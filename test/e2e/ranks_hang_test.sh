# A rank that lives and does not go on: the one behind is named with what it was at, all end soon after parallel.timeout, status.json tells it, and the next start goes on. Over MPI, and over
# NCCL on the simulator (build/flanmoe-sim). Needs mpirun (openmpi-bin).
SIM=$(dirname "$FLANMOE")/flanmoe-sim
[ -x "$SIM" ] || { fault "$SIM is not built"; return; }
tiny_world
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
timeout=4 signal=40
options=(--set parallel.timeout=$timeout --set train.steps=100000 --set train.save_every=2 --set eval.every=0 --set data.validation=[])

rank_process() { # RANK: of the run of this test
    local process
    for process in $(pgrep -f 'train .*--run run '); do
        [[ $(cat "/proc/$process/comm" 2> /dev/null) == flanmoe* ]] && tr '\0' '\n' < "/proc/$process/environ" 2> /dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1" && echo "$process"
    done
}
steps_made() { cat run/metrics.jsonl 2> /dev/null | grep -c '"kind":"train"'; }

# hung WHAT REGEX: the run in the background ends with exit code 77, soon, and says so, in status.json too.
hung() {
    local began=$SECONDS status
    wait $job
    status=$?
    [ $status = 77 ] || fault "$1: exit code $status, expected 77" run.log
    [ $((SECONDS - began)) -le $((timeout + 20)) ] || fault "$1: it took $((SECONDS - began)) s until all had ended"
    grep -qE "$2" run.log || fault "$1: the culprit is not named" run.log
    [ "$(grep -c '^flanmoe: ' run.log)" = 1 ] || fault "$1: not told once" run.log
    grep -qE "$2" run/status.json || fault "$1: status.json does not say it" run/status.json
    [ -z "$(pgrep -f 'train .*--run run ')" ] || fault "$1: processes are left"
    all_valid run "$1"
}
# hang_rank_1: at some moment after three steps.
hang_rank_1() {
    local begin
    begin=$(steps_made)
    until [ "$(steps_made)" -ge $((begin + 3)) ]; do
        [ -d "/proc/$job" ] || { fault 'the run makes no steps' run.log; return; }
        sleep 0.05
    done
    kill -$signal "$(rank_process 1)"
}
behind() { echo "rank $1 \\(process [0-9]+ on .*\\) (has not come to|is stuck in) .* for [0-9]+ s \\(parallel.timeout\\); it was last at step [0-9]+, .*; rank $((1 - $1)) is at step [0-9]+, .*, in "; }

# Rank 0 in its metrics, at the fifth line; rank 1 waits for it in the next step.
both=(train span.toml --run run "${options[@]}" --set parallel.data=0)
"$FLANMOE" "${both[@]}" --max-steps 2 > run.log 2>&1 < /dev/null
timeout 120 mpirun -q --oversubscribe -n 1 env FAULT_UNDER="$PWD/run/metrics.jsonl" FAULT_AT=5 FAULT_KIND=hang LD_PRELOAD="$SHIM" "$FLANMOE" "${both[@]}" : -n 1 "$FLANMOE" "${both[@]}" \
    > run.log 2>&1 < /dev/null &
job=$!
hung 'rank 0 hangs in a write' "$(behind 0)"

# Rank 1 anywhere in a step: over MPI it may hold what its signs of life need; over NCCL both hosts wait for their devices.
LD_PRELOAD=$SHIM FAULT_HANG_SIGNAL=$signal timeout 120 mpirun -q --oversubscribe -n 2 "$FLANMOE" "${both[@]}" > run.log 2>&1 < /dev/null &
job=$!
hang_rank_1
hung 'rank 1 hangs over MPI' "$(behind 1)|rank 1 \\(.*\\) has given no sign of life"
next_start() { # options...
    local last
    last=$(grep -o '"step": [0-9]*' run/status.json | grep -o '[0-9]*')
    timeout 300 mpirun -q --oversubscribe -n 2 "$@" --set train.steps=$((last + 6)) > run.log 2>&1 < /dev/null || fault 'the next start does not go on' run.log
}
next_start "$FLANMOE" "${both[@]}"
mv run over-mpi
for axis in tensor data; do
    FLANMOE_SIM_DEVICES=2 FLANMOE_SIM_NCCL=$PWD/nccl LD_PRELOAD=$SHIM FAULT_HANG_SIGNAL=$signal timeout 300 mpirun -q --oversubscribe -n 2 "$SIM" train span.toml --run run "${options[@]}" \
        --set parallel.$axis=2 --device cuda > run.log 2>&1 < /dev/null &
    job=$!
    hang_rank_1
    hung "rank 1 hangs over NCCL ($axis)" "$(behind 1)|rank 1 \\(.*\\) has given no sign of life"
    grep -q 'over NCCL' run.log || fault 'not over NCCL' run.log
done
