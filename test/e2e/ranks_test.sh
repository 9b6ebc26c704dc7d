# Several ranks under mpirun: the same curve on any number of them, signals, trouble of one rank, and what is refused. Needs mpirun (openmpi-bin).
tiny_world
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# ranks N CONFIG RUN options...: as `train`, on N ranks, as the shipped script starts them. A shell behind this one would ignore Ctrl-C for ever.
ranks() {
    local n=$1 config=$2 run=$3
    shift 3
    MPIRUN=--oversubscribe timeout -k 20 150 env --default-signal=INT "$ROOT/run/mpirun.sh" "$n" "$config" --run "$run" "$@" > "$run.log" 2>&1 < /dev/null
}
# ours PATTERN: processes of this test whose command line matches.
ours() {
    local process
    for process in $(pgrep -f "$1"); do [ "$(readlink "/proc/$process/cwd")" = "$PWD" ] && echo "$process"; done
}
# process_of RUN RANK: the process of a rank of the run.
process_of() {
    local process
    for process in $(ours "train .*--run $1 "); do  # mpirun has the same words
        [ "$(cat "/proc/$process/comm" 2> /dev/null)" = flanmoe ] && tr '\0' '\n' < "/proc/$process/environ" 2> /dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$2" && echo "$process"
    done
}
# begin N CONFIG RUN options...: in the background, in `job`; returns after some steps.
begin() {
    local i
    : > "$3.log"
    ranks "$@" &
    job=$!
    for ((i = 0; i < 3000; i++)); do
        [ "$(grep -c '^step [0-9]*/' "$3.log")" -ge 3 ] && return
        sleep 0.01
    done
    fault "$3 makes no steps" "$3.log"
}
# launcher RUN: mpirun's process; script RUN: that of the script that started it.
launcher() { ours "^mpirun .*--run $1 "; }
script() { ours "^[^ ]*bash [^ ]*mpirun.sh .*--run $1 "; }
# soon WHAT BEGAN: at most ten seconds have passed.
soon() { [ $((SECONDS - $2)) -le 10 ] || fault "$1: it took $((SECONDS - $2)) s until all had ended"; }
# same_curve A B: the losses of two runs agree to 1e-5, as do tokens.
same_curve() {
    paste <(grep '"kind":"train"' "$1/metrics.jsonl") <(grep '"kind":"train"' "$2/metrics.jsonl") > pairs
    [ "$(grep -c '"kind":"train"' "$1/metrics.jsonl")" = "$(grep -c '"kind":"train"' "$2/metrics.jsonl")" ] || fault "$2 has not as many steps as $1"
    awk -F'\t' 'function of(line, name) { match(line, "\"" name "\":[-+0-9.e]*"); return substr(line, RSTART + length(name) + 3, RLENGTH - length(name) - 3) }
        { a = of($1, "loss"); b = of($2, "loss"); d = a - b; if (d < 0) d = -d; if (d > 1e-5 * a || a == "" || of($1, "tokens") != of($2, "tokens")) { print "step " NR ": " a " and " b; exit 1 } }' pairs > difference ||
        fault "$1 and $2 differ: $(cat difference)"
}

# The same curve on 1, 2 and 3 ranks (4 rows do not divide by 3), and over a change of their number in the middle.
options=(--set train.steps=24 --set train.save_every=8 --set eval.every=12 --set parallel.check_every=5)
ends 0 span.toml one "${options[@]}"
for n in 2 3; do
    ranks $n span.toml run$n "${options[@]}" || fault "$n ranks: exit code $?" run$n.log
    same_curve one run$n
    all_valid run$n "on $n ranks"
    [ -s run$n/logs/rank-0001.log ] || fault 'rank 1 has no log'
done
ranks 4 instruct.toml instruct4 "${options[@]}" || fault "instruct on 4 ranks: exit code $?" instruct4.log
ends 0 instruct.toml instruct1 "${options[@]}"
same_curve instruct1 instruct4
ranks 4 span.toml expert "${options[@]}" --set parallel.expert=2 || fault "2 x 2 expert ranks: exit code $?" expert.log
ranks 4 span.toml expert "${options[@]}" --set train.steps=30 --set parallel.expert=1 --set parallel.tensor=2 --set parallel.sequence=true || fault "2 x 2 tensor ranks: exit code $?" expert.log
ends 0 span.toml one "${options[@]}" --set train.steps=30
same_curve one expert
ranks 2 span.toml again "${options[@]}"
cmp -s run2/checkpoints/step-00000024/model.safetensors again/checkpoints/step-00000024/model.safetensors || fault 'two runs on 2 ranks have not the same bits'

# Interrupted again and again, by mpirun's or one rank's signal, and gone on with on another number of ranks.
slow=(--set train.steps=100000 --set train.save_every=0 --set eval.every=0 --set data.validation=[])
ends 75 span.toml elastic "${slow[@]}" --max-steps 3
lives=1
for signal in 'USR1 launcher' 'USR2 launcher' 'TERM script' 'INT script'; do
    read -r name to <<< "$signal"
    lives=$((3 - lives))
    begin $lives span.toml elastic "${slow[@]}"
    kill -"$name" "$($to elastic)"
    began=$SECONDS  # finding the process may take long beside compilers
    wait $job
    status=$?
    soon "$signal" $began
    [ $status = 75 ] || fault "$signal: exit code $status, expected 75" elastic.log
    grep -q '"state": "stopped"' elastic/status.json || fault "$signal: status.json does not say stopped" elastic/status.json
    all_valid elastic "after $signal"
done
begin 3 span.toml elastic "${slow[@]}"
kill -TERM "$(process_of elastic 2)"
wait $job
status=$?
[ $status = 75 ] || fault "TERM to one rank: exit code $status, expected 75" elastic.log
grep -q '"message": "a request to rank 2"' elastic/status.json || fault 'status.json does not name the rank that was asked to stop' elastic/status.json
steps=$(grep -o '"step": [0-9]*' elastic/status.json | grep -o '[0-9]*')
grep -o '"kind":"train","step":[0-9]*' elastic/metrics.jsonl | grep -o '[0-9]*$' | cmp -s - <(seq "$steps") || fault 'steps are lost or stand twice' elastic/metrics.jsonl
# Rounding grows from step to step, so the beginning is compared.
ends 75 span.toml whole "${slow[@]}" --max-steps 30
for run in whole elastic; do mkdir begin-$run && head -$((steps < 30 ? steps : 30)) $run/metrics.jsonl > begin-$run/metrics.jsonl; done
same_curve begin-whole begin-elastic

# Signals at random moments from the first one on: while ranks are started, load, step, save.
RANDOM=${SEED:-$$} seed=${SEED:-$$}
ends 75 span.toml moments "${slow[@]}" --max-steps 1
for ((round = 0; round < 6; round++)); do
    names=(USR1 USR2 TERM) name=${names[RANDOM % 3]} delay=0.$((RANDOM % 9))$((RANDOM % 10))
    MPIRUN=--oversubscribe "$ROOT/run/mpirun.sh" $((1 + RANDOM % 3)) span.toml --run moments "${slow[@]}" --set train.save_every=2 > moments.log 2>&1 < /dev/null &
    job=$! victim=$!
    if ((RANDOM % 2)); then
        for ((i = 0; i < 3000; i++)); do victim=$(process_of moments 0); [ -z "$victim" ] || break; sleep 0.01; done
        sleep 0.1  # until its handlers are there
    fi
    [ "$victim" != $job ] || sleep 0.3  # until the script has its own
    sleep $delay
    kill -$name "$victim"
    began=$SECONDS
    wait $job
    status=$?
    soon "$name after $delay s (SEED=$seed)" $began
    [ $status = 75 ] || fault "$name after $delay s (SEED=$seed): exit code $status, expected 75" moments.log
    all_valid moments "after $name at a random moment (SEED=$seed)"
done
steps=$(grep -o '"step": [0-9]*' moments/status.json | grep -o '[0-9]*')
grep -o '"kind":"train","step":[0-9]*' moments/metrics.jsonl | grep -o '[0-9]*$' | cmp -s - <(seq "$steps") || fault "signals at random moments (SEED=$seed): steps are lost or stand twice" moments/metrics.jsonl

# A rank that dies or stops ends all, soon, with its name; the next start goes on.
for fault in KILL STOP; do
    for rank in 0 2; do
        begin 3 span.toml broken "${slow[@]}" --set train.save_every=5
        victim=$(process_of broken $rank)
        kill -$fault "$victim"
        began=$SECONDS
        wait $job
        status=$?
        [[ $status =~ ^(76|77|137)$ ]] || fault "$fault of rank $rank: exit code $status" broken.log
        soon "$fault of rank $rank" $began
        grep -q '"state": "failed"' broken/status.json || fault "$fault of rank $rank: status.json does not say failed" broken/status.json
        grep -qE "\"message\": \"rank $rank \(process $victim on .*\) has (ended|been stopped|given no sign of life)" broken/status.json || fault "$fault: status.json does not name rank $rank" broken/status.json
        [ -z "$(ours 'train .*--run broken ')" ] || fault "$fault of rank $rank: processes are left"
    done
done
ranks 2 span.toml broken "${slow[@]}" --set train.save_every=5 --max-steps 2
[ $? = 75 ] || fault 'a run whose ranks died does not go on' broken.log

# The sentence names part and layer: tensor ranks exchange in each, so at one of some random moments one of the two surely is inside.
for ((try = 0; try < 8; try++)); do
    begin 2 span.toml split "${slow[@]}" --set parallel.tensor=2
    kill -STOP "$(process_of split 1)"
    wait $job
    grep -q '"message": "rank 1 .* has been stopped' split/status.json || fault 'the sentence about a stopped rank is not the first' split/status.json
    grep -qE '"message": .* (forward|backward), layer [0-9]+, in all-reduce;' split/status.json && break
done
[ $try -lt 8 ] || fault 'the sentence about a stopped rank names no part and layer' split/status.json

# More ranks than rows of a step: one has nothing to do, and is told so.
ranks 2 span.toml idle "${slow[@]}" --set data.batch_rows=1 --set data.micro_batch_rows=1 --max-steps 1
[ $? = 75 ] && [ "$(grep -c 'warning: 1 of 2 replicas get no row of a step' idle.log)" = 1 ] || fault 'nothing is said of a rank without rows' idle.log

# What is refused: one sentence, the code of its kind, no hang.
began=$SECONDS
MPIRUN=--oversubscribe expect 64 'start 3 ranks, or set parallel.data = 2' "$ROOT/run/mpirun.sh" 2 span.toml --run refused --set parallel.data=3
soon 'a refusal' $began
refuse 64 'there are 2 ranks, but parallel.data x parallel.expert x parallel.tensor is 3 x 1 x 1; start 3 ranks, or set parallel.data = 2' \
    timeout 60 mpirun -q --oversubscribe -n 2 "$FLANMOE" train span.toml --run refused --set parallel.data=3
refuse 64 'unknown option --nonsense' timeout 60 mpirun -q --oversubscribe -n 2 "$FLANMOE" train span.toml --run refused --nonsense
refuse 64 'inspect runs on one rank, but 2 were started' timeout 60 mpirun -q --oversubscribe -n 2 "$FLANMOE" inspect one
refuse 64 'rank 1 has another config than rank 0 \(train.seed = 1, not 0\); start' \
    timeout 60 mpirun -q --oversubscribe -n 1 "$FLANMOE" train span.toml --run refused --set parallel.data=2 : -n 1 "$FLANMOE" train span.toml --run refused --set parallel.data=2 --set train.seed=1
refuse 64 'rank 1 has another config than rank 0 \([a-z.]+_?[a-z]* = .*, not .*, and 2 more differ\); start' \
    timeout 60 mpirun -q --oversubscribe -n 1 "$FLANMOE" train span.toml --run refused --set parallel.data=2 : \
    -n 1 "$FLANMOE" train span.toml --run refused --set parallel.data=2 --set train.seed=1 --set train.steps=7 --set optimizer.learning_rate=0.5
cp "$FLANMOE" other && printf x >> other
refuse 64 'rank 1 has another flanmoe program than rank 0' \
    timeout 60 mpirun -q --oversubscribe -n 1 "$FLANMOE" train span.toml --run refused --set parallel.data=2 : -n 1 ./other train span.toml --run refused --set parallel.data=2
refuse 66 'there is no vocabulary at nothing' timeout 60 mpirun -q --oversubscribe -n 2 "$FLANMOE" train span.toml --run refused --set parallel.data=2 --set 'data.tokenizer="nothing"'
refuse 64 'the launcher started 2 tasks, but not as ranks of Open MPI.*the mpirun of Open MPI' env PMI_RANK=0 PMI_SIZE=2 "$FLANMOE" train span.toml --run refused
refuse 64 'srun --mpi=pmix' env SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=2 "$FLANMOE" train span.toml --run refused
"$FLANMOE" train span.toml --run busy "${slow[@]}" --set train.threads=1 > busy.log 2>&1 < /dev/null &
job=$!
for ((i = 0; i < 3000; i++)); do
    [ "$(grep -c '^step [0-9]*/' busy.log)" -ge 3 ] && break
    sleep 0.01
done
refuse 73 'process .* works in the run directory busy' timeout 60 mpirun -q --oversubscribe -n 2 "$FLANMOE" train span.toml --run busy "${slow[@]}" --set parallel.data=0
kill -USR1 $job
wait $job
[ $? = 75 ] || fault 'the first job did not end in good order' busy.log

# Recorded cases of training on 2 and 4 ranks.
for n in 2 4; do
    for name in train-switch train-dense; do
        expect 0 "ok      .*$name f64" timeout 60 mpirun -q --oversubscribe -n $n "$FLANMOE" parity "$ROOT/test/oracle/$name" --dtype f64
    done
done

# Stopped and gone on with on the same layout: the same bits as without.
short=(--set train.steps=16 --set train.save_every=0 --set eval.every=0 --set data.validation=[])
for axis in data expert tensor; do
    layout=("${short[@]}" --set parallel.data=1 --set parallel.$axis=2)
    ranks 2 span.toml straight-$axis "${layout[@]}" || fault "two $axis ranks: exit code $?" straight-$axis.log
    ranks 2 span.toml halves-$axis "${layout[@]}" --max-steps 7
    [ $? = 75 ] || fault "seven steps on two $axis ranks did not stop with 75" halves-$axis.log
    ranks 2 span.toml halves-$axis "${layout[@]}" || fault "going on on two $axis ranks: exit code $?" halves-$axis.log
    same_run straight-$axis halves-$axis
done

# Recorded cases on two ranks: what is wrong with the files of one rank is told, and the next case is judged all the same.
mkdir here there
cp -r "$ROOT/test/oracle/train-switch" "$ROOT/test/oracle/router-switch" here
cp -r here/* there
rm there/train-switch/inputs.safetensors
on_two=(timeout 60 mpirun -q --oversubscribe -n 1 -wdir here "$FLANMOE" parity train-switch router-switch : -n 1)
expect 0 'ok      train-switch' "${on_two[@]}" -wdir "$PWD/here" "$FLANMOE" parity train-switch router-switch
expect 65 'FAILED  train-switch: rank 1: .*inputs.safetensors' "${on_two[@]}" -wdir "$PWD/there" "$FLANMOE" parity train-switch router-switch
expect 65 'ok      router-switch' "${on_two[@]}" -wdir "$PWD/there" "$FLANMOE" parity train-switch router-switch
