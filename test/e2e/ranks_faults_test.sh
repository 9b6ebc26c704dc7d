# One rank of several fails, is killed or is stopped: at the start, while loading, in a step, while saving. All end soon, the sentence says which rank and why, what was saved stays valid, and the
# next start goes on. Needs mpirun (openmpi-bin).
tiny_world
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
options=(--set parallel.data=0 --set train.steps=12 --set train.save_every=4 --set eval.every=0 --set data.validation=[])
program=("$FLANMOE" train span.toml)

# ended WHAT CODES REGEX: the ranks of run.log ended with one of the codes, within 10 seconds of `began`, and said so.
ended() {
    [[ $status =~ ^($2)$ ]] || fault "$1: exit code $status, expected $2" run.log
    [ $((SECONDS - began)) -le 10 ] || fault "$1: it took $((SECONDS - began)) s until all had ended"
    grep -qE "$3" run.log || fault "$1: not a word about it" run.log
    [ "$(grep -cE "^flanmoe: .*($3)" run.log)" -le 1 ] || fault "$1: told more than once" run.log
    [ -z "$(pgrep -f "train .*--run run ")" ] || fault "$1: processes are left"
}
# both LEFT... : RIGHT...: rank 0 and rank 1, each with a command of its own.
both() {
    began=$SECONDS
    timeout 60 mpirun -q --oversubscribe -n 1 "$@" > run.log 2>&1 < /dev/null
    status=$?
}
# some_steps: until the run in the background has made three.
some_steps() {
    for ((i = 0; i < 2000; i++)); do
        [ "$(grep -c '^step [0-9]*/' run.log)" -ge 3 ] && return
        sleep 0.01
    done
    fault 'the run makes no steps' run.log
}
goes_on() {
    all_valid run "$1"
    both "${program[@]}" --run run "${options[@]}" "${@:2}" : -n 1 "${program[@]}" --run run "${options[@]}" "${@:2}"
    [ $status = 0 ] || fault "$1: the next start ends with $status" run.log
}

# Before the start: a rank is stopped before it comes to MPI, which waits for it.
for rank in 0 1; do
    healthy=("${program[@]}" --run run "${options[@]}") broken=(env FAULT_AT=0 FAULT_KIND=stop LD_PRELOAD="$SHIM" "${healthy[@]}")
    if [ $rank = 0 ]; then both "${broken[@]}" : -n 2 "${healthy[@]}"; else both "${healthy[@]}" : -n 1 "${broken[@]}" : -n 1 "${healthy[@]}"; fi
    ended "rank $rank stopped before MPI begins" '77' "rank $rank \(process .* on .*\) has been stopped"
done

# At the start: rank 1 has no config.
both "${program[@]}" --run run "${options[@]}" : -n 1 "$FLANMOE" train nowhere.toml --run run "${options[@]}"
ended 'no config on rank 1' 66 'rank 1: .*nowhere.toml'

# While loading: rank 1 sees another checkpoint than rank 0, cut short.
both "${program[@]}" --run run "${options[@]}" --max-steps 4 : -n 1 "${program[@]}" --run run "${options[@]}" --max-steps 4
[ $status = 75 ] || fault "four steps: exit code $status" run.log
mkdir other && cp -r run other/ && for name in vocabulary shards span.toml; do ln -s "../$name" other/$name; done
truncate -s -100 other/run/checkpoints/step-00000004/model.safetensors
both "${program[@]}" --run run "${options[@]}" : -wdir "$PWD/other" -n 1 "${program[@]}" --run run "${options[@]}"
ended 'a damaged checkpoint on rank 1' 80 'rank 1: .*model.safetensors'
goes_on 'after a damaged checkpoint on rank 1' --set train.steps=8

# In a step: rank 1 ends with a fault of its own.
: > run.log
timeout 60 mpirun -q --oversubscribe -n 2 "${program[@]}" --run run "${options[@]}" --set train.steps=100000 > run.log 2>&1 < /dev/null &
job=$!
some_steps
for process in $(pgrep -f 'train .*--run run '); do
    [ "$(cat "/proc/$process/comm" 2> /dev/null)" = flanmoe ] && tr '\0' '\n' < "/proc/$process/environ" 2> /dev/null | grep -qx OMPI_COMM_WORLD_RANK=1 && victim=$process
done
began=$SECONDS
kill -SEGV "$victim"
wait $job
status=$?
ended 'a fault in a step of rank 1' '76|139' "rank 1 \(process $victim on .*\) has ended"
steps=$(grep -o '"step": [0-9]*' run/status.json | grep -o '[0-9]*')

# While saving: rank 0 is killed at one of the save's operations; then its disk fails there, which does not end the run.
last=$((steps + 40))
for at in 3 30; do
    both env FAULT_UNDER="$PWD/run/checkpoints" FAULT_AT=$at FAULT_KIND=kill LD_PRELOAD="$SHIM" "${program[@]}" --run run "${options[@]}" --set train.steps=$last : \
        -n 1 "${program[@]}" --run run "${options[@]}" --set train.steps=$last
    ended "rank 0 killed at operation $at of a save" '76|137' 'rank 0 \(process .* on .*\) has ended'
    goes_on "after rank 0 was killed at operation $at of a save" --set train.steps=$last
    last=$((last + 8))
done
both env FAULT_UNDER="$PWD/run/checkpoints" FAULT_AT=5 FAULT_KIND=eio LD_PRELOAD="$SHIM" "${program[@]}" --run run "${options[@]}" --set train.steps=$last : \
    -n 1 "${program[@]}" --run run "${options[@]}" --set train.steps=$last
[ $status = 0 ] || fault "an error of the disk in a save of rank 0: exit code $status" run.log
grep -q 'was not saved .*training goes on' run.log || fault 'an error of the disk in a save of rank 0: not a word about it' run.log
all_valid run 'after an error of the disk in a save'

# Killed or stopped at the start (where rank 1 opens the config), while loading (the checkpoint's second file), while saving.
for fault in kill stop; do
    if [ $fault = kill ]; then codes='76|137' word=ended; else codes='76|77|137' word='been stopped'; fi
    last=$((last + 8))
    for moment in start load save; do
        rank=1 under=run/checkpoints at=2
        case $moment in
            start) under=span.toml at=1 ;;
            save) rank=0 at=4 ;;
        esac
        broken=(env FAULT_UNDER="$PWD/$under" FAULT_AT=$at FAULT_KIND=$fault LD_PRELOAD="$SHIM")
        [ $moment = save ] || broken+=(FAULT_READS=1)
        whole=("${program[@]}" --run run "${options[@]}" --set train.steps=$last)
        if [ $rank = 0 ]; then both "${broken[@]}" "${whole[@]}" : -n 1 "${whole[@]}"; else both "${whole[@]}" : -n 1 "${broken[@]}" "${whole[@]}"; fi
        ended "rank $rank, $fault at $moment" "$codes" "rank $rank \(process .* on .*\) has ($word|given no sign of life)"
    done
    goes_on "after $fault at the start, at loading and at saving" --set train.steps=$last
done

# TERM or INT to mpirun itself, without the launch line that gives ranks time: it kills them after a second, saved or not; the next start goes on from the last save.
for signal in TERM INT; do
    : > run.log
    mpirun -q --oversubscribe -n 2 "${program[@]}" --run run "${options[@]}" --set train.steps=100000 > run.log 2>&1 < /dev/null &
    job=$!
    some_steps
    began=$SECONDS
    kill -$signal $job
    wait $job
    status=$?
    [ $status != 0 ] && [ $((SECONDS - began)) -le 10 ] || fault "$signal to a bare mpirun: exit code $status after $((SECONDS - began)) s" run.log
    [ -z "$(pgrep -f "train .*--run run ")" ] || fault "$signal to a bare mpirun: processes are left"
    last=$(($(grep -o '"step": [0-9]*' run/status.json | grep -o '[0-9]*') + 8))
    goes_on "after $signal to a bare mpirun" --set train.steps=$last
done
