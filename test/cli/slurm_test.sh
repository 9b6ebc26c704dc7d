# The batch scripts with stand-ins for Slurm's commands: what ends a job, what puts it back into the queue, and sweeps. A real Slurm: test/slurm/one_node.sh.
mkdir bin
cat > bin/scontrol << END
#!/bin/bash
if [ "\$1" = show ]; then
    for ((i = 0; i < \${RECORDS:-1}; i++)); do printf 'JobId=7 JobName=x\\n   Command=%s a b\\n' "\$SCRIPT"; done
    exit
fi
echo "\$*" >> requeued
END
# The launcher: writes the status that the test asks for, if any, and ends with a code of its choice.
cat > bin/srun << 'END'
#!/bin/bash
printf '%s\n' "$*" >> started
[ -z "${STATE:-}" ] || printf '{\n  "state": "%s",\n  "step": %s,\n  "process": %s\n}\n' "$STATE" "${STEP:-5}" $$ > "${STATUS:-run}/status.json"
exit "${CODE:-0}"
END
chmod +x bin/* && ln -s srun bin/mpirun
mkdir run
job() {
    local name=$1
    shift
    env PATH="$PWD/bin:$PATH" RUN=run FLANMOE=flanmoe SCRIPT="$ROOT/run/slurm/$name" SLURM_JOB_ID=7 SLURM_NTASKS=2 "$@" bash "$ROOT/run/slurm/$name" config.toml
}
requeued() { [ "$(cat requeued 2> /dev/null | wc -l)" = "$1" ] || { echo "  $2: put back into the queue $(cat requeued 2> /dev/null | wc -l) times, expected $1"; failures=$((failures + 1)); }; }

for name in train.sbatch mpirun.sbatch; do
    rm -f requeued run/*
    expect 0 'flanmoe: done' job $name STATE=done
    expect 0 'saved at step 7; back into the queue' job $name STATE=stopped STEP=7 CODE=75
    expect 0 'saved at step 8; back into the queue' job $name STATE=stopped STEP=8 CODE=143
    requeued 2 $name
    # What an earlier life said does not count.
    expect 3 'ended with 3 before the run was done' job $name CODE=3
    expect 64 'ended with 64' job $name CODE=64
    expect 1 'ended with 0 before the run was done' job $name
    expect 70 'ended with 70' job $name STATE=failed STEP=8 CODE=70
    requeued 2 $name
    expect 0 'back into the queue' job $name STATE=stopped STEP=8 CODE=75
    expect 0 'back into the queue' job $name STATE=stopped STEP=8 CODE=75
    expect 75 'three lives without a step' job $name STATE=stopped STEP=8 CODE=75
    requeued 4 $name
done

printf -- '--set train.seed=1\n\n--set train.seed=3 --set model.dropout=0\n' > options.txt
rm started
expect 64 'task 0 has no line in the file of options' job train.sbatch SLURM_ARRAY_TASK_ID=0
expect 64 'task 0 has no line in the file of options' job train.sbatch SLURM_ARRAY_TASK_ID=0 SWEEP=missing.txt
expect 64 'task 3 has no line in the file of options .SWEEP=options.txt., which has 3' job train.sbatch SLURM_ARRAY_TASK_ID=3 SWEEP=options.txt
[ ! -e started ] || { echo '  a task without options was started'; failures=$((failures + 1)); }
job train.sbatch SLURM_ARRAY_TASK_ID=1 SWEEP=options.txt > sweep.log 2>&1
job train.sbatch SLURM_ARRAY_TASK_ID=2 SWEEP=options.txt >> sweep.log 2>&1
[ "$(cat started)" = '--mpi=pmix --kill-on-bad-exit=1 flanmoe train --run run/1 --set parallel.data=0 config.toml
--mpi=pmix --kill-on-bad-exit=1 flanmoe train --run run/2 --set parallel.data=0 config.toml --set train.seed=3 --set model.dropout=0' ] || { echo '  a sweep starts:'; cat started sweep.log; failures=$((failures + 1)); }

# The task of an array whose number is the array's own: Slurm has a record of every task under it, and it must put only itself back.
rm -f requeued && mkdir -p run/1
expect 0 'saved at step 7; back into the queue' job train.sbatch SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=1 SWEEP=options.txt RECORDS=3 STATUS=run/1 STATE=stopped STEP=7 CODE=75
[ "$(cat requeued)" = 'requeue 7_1' ] || { echo "  a task of an array puts back: $(cat requeued)"; failures=$((failures + 1)); }
