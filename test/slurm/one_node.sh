#!/bin/bash
# The shipped batch script on a real Slurm of one node, in namespaces of its own that leave the machine as it is: a job meets its time limit, saves, goes back
# into the queue and goes on in its next lives, to the same bits as a run that nothing interrupted. Not a part of `make test`: it needs root and the network,
# since Slurm is installed (into an overlay in memory) for it. About three minutes.
#
# Usage: test/slurm/one_node.sh [train.sbatch]        recorded result: test/README.md
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
if [ -z "${INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "one_node: needs root, for namespaces of its own" >&2; exit 69; }
    folder=$(mktemp -d)
    INSIDE=mounts FOLDER=$folder SCRIPT=${1:-train.sbatch} FLANMOE=$(realpath "${FLANMOE:-build/flanmoe}") unshare -m -p -f --kill-child "$0"
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
    INSIDE=slurm exec chroot "$FOLDER/root" "$PWD/test/slurm/one_node.sh"
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
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' > /etc/slurm/cgroup.conf
slurmctld && slurmd && sleep 3
sinfo || exit 70

root=$PWD
cd /tmp || exit 70
source "$root/test/cli/check.sh"
source "$root/test/e2e/tiny.sh"
tiny_world
options=(--set train.steps=${STEPS:-24000} --set train.save_every=0 --set eval.every=0 --set data.validation=[] --set train.log_every=100)
mpirun -q --oversubscribe -n 2 "$FLANMOE" train span.toml --run whole --set parallel.data=0 "${options[@]}" > whole.log 2>&1 || { tail -3 whole.log; exit 70; }
echo "uninterrupted: $(tail -1 whole/metrics.jsonl | cut -c1-60)"

job=$(RUN=run sbatch --parsable -t 1 --signal=USR1@40 --ntasks-per-node=2 --output=job.log "$root/run/slurm/$SCRIPT" span.toml "${options[@]}")
[ "$SCRIPT" = train.sbatch ] || scontrol update "jobid=$job" TimeLimit=1
began_again=0
for ((i = 0; i < 1000; i++)); do  # until the run is over
    # A requeued job waits for two minutes, which a test need not; asked once a life, since every update puts the job at the end of what is scheduled.
    restarts=$(scontrol show job "$job" | grep -o 'Restarts=[0-9]*' | grep -o '[0-9]*')
    [ "$(squeue -h -j "$job" -o %T 2> /dev/null)" = PENDING ] && [ "${restarts:-0}" -gt $began_again ] && began_again=$restarts && sleep 2 && scontrol update "jobid=$job" StartTime=now
    [ -z "${TRACE:-}" ] || [ $((i % 10)) != 0 ] || squeue -h -j "$job" -o '%T %r %S' >&2
    grep -q '"state": "done"\|"state": "failed"' run/status.json 2> /dev/null && break
    sleep 0.5
done
sleep 2
grep '^flanmoe\|^resuming\|saved' job.log
scontrol show job "$job" | grep -o 'Restarts=[0-9]*'
lives=$(grep -c 'back into the queue' job.log)
[ "$lives" -ge 1 ] || fault 'the job was never put back into the queue' job.log
grep -q '^flanmoe: done' job.log || fault 'the job did not end' job.log
same_run whole run
[ "$failures" = 0 ] && echo "ok: $((lives + 1)) lives, the bits of a run without interruption"
finish
