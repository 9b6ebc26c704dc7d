#!/bin/bash
# The shipped batch scripts on a real Slurm of one node, in namespaces of its own that leave the machine as it is: jobs meet their time limit, are put back into the
# queue, make way for a more urgent job, or are a sweep as an array, and end with the bits of runs that nothing interrupted. Not a part of `make test`: it needs root
# and the network, since Slurm is installed (into an overlay in memory) for it. A quarter of an hour
# or more for all of them.
#
# Usage: test/slurm/one_node.sh [SCENARIO...]        recorded result: test/README.md
# Scenarios, all if none is named: limit, requeue, preempt, the same with -mpirun behind (run/slurm/mpirun.sbatch for train.sbatch), array. TRACE=1 shows the queue.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
if [ -z "${INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "one_node: needs root, for namespaces of its own" >&2; exit 69; }
    folder=$(mktemp -d)
    INSIDE=mounts FOLDER=$folder FLANMOE=$(realpath "${FLANMOE:-build/flanmoe}") unshare -m -p -f --kill-child "$PWD/test/slurm/one_node.sh" "$@"
    status=$?
    rm -rf "$folder"
    exit $status
fi

if [ "$INSIDE" = mounts ]; then
    mount --make-rprivate / && mount -t tmpfs tmpfs "$FOLDER" && mkdir "$FOLDER"/{upper,work,root} || exit 70
    mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root" || exit 70
    for path in /dev /sys; do mount --rbind $path "$FOLDER/root$path"; done
    mount -t proc proc "$FOLDER/root/proc" && mount -t tmpfs tmpfs "$FOLDER/root/run" && mount -t tmpfs tmpfs "$FOLDER/root/tmp"
    mkdir -p "$FOLDER/root$PWD" "$FOLDER/root/tmp/program" && mount --bind "$PWD" "$FOLDER/root$PWD" && cp "$FLANMOE" "$FOLDER/root/tmp/program/flanmoe"
    cp "$(dirname "$FLANMOE")"/*.so "$FOLDER/root/tmp/program/" 2> /dev/null
    INSIDE=slurm exec chroot "$FOLDER/root" "$PWD/test/slurm/one_node.sh" "$@"
fi

export DEBIAN_FRONTEND=noninteractive FLANMOE=/tmp/program/flanmoe OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
{ apt-get update && apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge; } > /tmp/install.log 2>&1 || { tail -3 /tmp/install.log; exit 70; }
mkdir -p /etc/slurm /var/spool/slurmd /var/spool/slurmctld /run/munge && chown munge /run/munge
head -c 1024 /dev/urandom > /etc/munge/munge.key && chown munge /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
setpriv --reuid=munge --regid=munge --clear-groups munged || exit 70
cat > /etc/slurm/slurm.conf << END
ClusterName=one
SlurmctldHost=$(hostname)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=pmix
KillWait=5
ReturnToService=2
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SchedulerParameters=bf_interval=5
NodeName=$(hostname) CPUs=$(nproc) State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=10
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
END
printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' > /etc/slurm/cgroup.conf
slurmctld && slurmd && sleep 3
sinfo || exit 70

root=$PWD
cd /tmp || exit 70
source "$root/test/cli/check.sh"
source "$root/test/e2e/tiny.sh"
tiny_world
options=(--set train.save_every=0 --set eval.every=0 --set train.log_every=100)

# whole RUN options...: two ranks that nothing interrupts.
whole() {
    local run=$1
    shift
    mpirun -q --oversubscribe -n 2 "$FLANMOE" train span.toml --run "$run" --set parallel.data=0 "${options[@]}" "$@" > "$run.log" 2>&1 || { tail -3 "$run.log"; exit 70; }
}
whole speed --set train.steps=1000
rate=$(grep -o '"seconds_per_step":[^,}]*' speed/metrics.jsonl | cut -d: -f2 | sort -g | awk 'NR == 1 { printf "%d", 1 / $1 }')  # of the fastest: what the machine can do
short=(--set train.steps=$((12 * rate))) long=(--set train.steps=$((50 * rate)))  # of at least so many seconds
echo "$rate steps/s"

# submit SCRIPT RUN SBATCH-OPTIONS... -- OPTIONS...: the job's number.
submit() {
    local script=$1 run=$2 asked=()
    shift 2
    while [ "$1" != -- ]; do asked+=("$1"); shift; done
    RUN=$run sbatch --parsable --ntasks-per-node=2 "${asked[@]}" "$root/run/slurm/$script" span.toml "${options[@]}" "${@:2}"
}
# under_way RUN: it trains in this life, and has not yet for long.
under_way() {
    local i before
    before=$(cat "$1/metrics.jsonl" 2> /dev/null | wc -l)
    for ((i = 0; i < 1200; i++)); do
        grep -q '"state": "running"' "$1/status.json" 2> /dev/null && [ "$(wc -l < "$1/metrics.jsonl")" -gt "$((before + 3))" ] && return
        sleep 0.1
    done
    fault "$1 does not train"
}
# over JOB: waits until it has left the queue (at most 20 minutes). What has put itself back waits for two minutes, which a test need not; asked once a life, since every
# update puts a job at the end of what is scheduled.
over() {
    local began_again=' ' id restarts i
    for ((i = 0; i < 2400; i++)); do
        [ -n "$(squeue -h -j "$1" 2> /dev/null)" ] || return
        for id in $(squeue -h -r -j "$1" -t PENDING -o '%i %r' | awk '$2 == "BeginTime" { print $1 }'); do
            restarts=$(scontrol show job "$id" | grep -o 'Restarts=[0-9]*')
            [[ $began_again == *" $id/$restarts "* ]] || { began_again+="$id/$restarts "; sleep 2; scontrol update "jobid=$id" StartTime=now; }
        done
        [ -z "${TRACE:-}" ] || [ $((i % 10)) != 0 ] || squeue -h -r -o '%i %T %r %S' >&2
        sleep 0.5
    done
    fault "job $1 does not end"
    scancel "$1"
}
# ended NAME WHOLE RUN JOB LOG: the job is done in more lives than one, with the bits of a run without interruption.
ended() {
    local lives
    lives=$(grep -c '^resuming at step' "$5")
    grep '^flanmoe\|^resuming\|^slurmstepd' "$5" | sed 's/^/    /'
    [ "$lives" -ge 1 ] || fault "$1: the job had one life" "$5"
    grep -q '^flanmoe: done' "$5" || fault "$1: the job did not end" "$5"
    same_run "$2" "$3"
    echo "$1: $((lives + 1)) lives, $(scontrol show job "$4" | grep -o 'Restarts=[0-9]*'), ends with $(last_checkpoint "$3")"
}

# A time limit of a minute, with a signal 40 seconds before it: the job puts itself back until it is done.
limit() { # SCRIPT SIGNAL
    local run=limit-${1%.sbatch} job
    [ -d whole-long ] || whole whole-long "${long[@]}"
    job=$(submit "$1" "$run" --output="$run.out" -t 1 --signal="$2" -- "${long[@]}")
    over "$job"
    ended "$run" whole-long "$run" "$job" "$run.out"
    grep -q 'back into the queue' "$run.out" || fault 'the job was never put back into the queue' "$run.out"
}
# A job of a partition before which the others give way.
urgent_job() {
    local job
    job=$(sbatch --parsable -p urgent --output=urgent.out --wrap 'date +%s; sleep 3; date +%s')
    over "$job"
    [ "$(wc -l < urgent.out)" = 2 ] || fault 'the urgent job did not run' urgent.out
}
# An administrator puts the job back (requeue), or a more urgent one takes its place (preempt).
interrupted() { # SCRIPT HOW LENGTH
    local run=$2-${1%.sbatch} whole=whole-$3 job
    local -n steps=$3
    [ -d "$whole" ] || whole "$whole" "${steps[@]}"
    job=$(submit "$1" "$run" --output="$run.out" -- "${steps[@]}")
    under_way "$run"
    if [ "$2" = requeue ]; then scontrol requeue "$job"; else urgent_job; fi
    over "$job"
    ended "$run" "$whole" "$run" "$job" "$run.out"
}
# A sweep as an array of jobs: the second task is put back on its way, the third makes way for an urgent job and puts back itself; each alone.
array() {
    local job task lives sweep=("$FLANMOE" sweep span.toml "${options[@]}" "${short[@]}" --axis train.seed=1,2,3 --run array)
    "${sweep[@]}" --list > array.txt 2> array.log || { fault 'the sweep has no list' array.log; return; }
    job=$(SWEEP=array.txt submit train.sbatch array --output=array-%a.out --array=0-2 -- "${short[@]}")
    under_way array/1 && scontrol requeue "${job}_1"
    under_way array/2 && urgent_job
    over "$job"
    for task in 0 1 2; do
        whole "by-hand-$task" "${short[@]}" --set train.seed=$((task + 1))
        grep -q '^flanmoe: done' "array-$task.out" || fault "task $task did not end" "array-$task.out"
        lives=$((1 + $(grep -c '^resuming' "array-$task.out")))
        [ $lives = $((task == 0 ? 1 : 2)) ] || fault "task $task had $lives lives" "array-$task.out"
        same_run "by-hand-$task" "array/$task"
    done
    grep -q '^flanmoe: saved at step .*; back into the queue' array-2.out || fault 'task 2 did not put itself back' array-2.out
    "${sweep[@]}" > array-table.log 2>&1 || fault 'the sweep does not take what the jobs have trained' array-table.log
    grep -q ' begins, see' array-table.log && fault 'the sweep trained again what the jobs had' array-table.log
    sed 's/^/    /' array-table.log
    echo 'array: 3 tasks, two of them in two lives'
}

[ $# -gt 0 ] || set -- limit limit-mpirun requeue requeue-mpirun preempt preempt-mpirun array
for scenario; do
    case $scenario in
        limit) limit train.sbatch USR1@40 ;;
        limit-mpirun) limit mpirun.sbatch B:USR1@40 ;;
        requeue | preempt) interrupted train.sbatch "$scenario" short ;;
        requeue-mpirun) interrupted mpirun.sbatch requeue short ;;
        preempt-mpirun) interrupted mpirun.sbatch preempt long ;;  # Slurm looks every half minute whether a grace time is over
        array) array ;;
        *) fault "no scenario is called $scenario" ;;
    esac
done
[ "$failures" = 0 ] && echo "ok: $*, the bits of runs without interruption"
finish
