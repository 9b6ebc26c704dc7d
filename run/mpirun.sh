#!/bin/bash
# One training stage on several ranks of this machine (or of those in MPI's host file), under Open MPI's mpirun.
#
# Usage:    run/mpirun.sh RANKS CONFIG... --run DIR [train options]       the other axes: --set parallel.expert=2 --set parallel.tensor=2
# Cost:     that of the stage; each rank holds a whole copy of what its axes do not divide. Give every rank its cores: OMP_NUM_THREADS.
# Expect:   the curve of one rank, but for rounding. Exit code 75: stopped by a signal or a limit and saved; the same command goes on, on any number of ranks.
# Stop:     kill -USR1 the process of mpirun, which passes it on. TERM and Ctrl-C reach the ranks too, which then have the 60 seconds that the launch line
#           gives them (mpirun's own choice is one second, too short for saving).
# MPIRUN    holds further options of mpirun, say MPIRUN="--hostfile hosts" or "--oversubscribe".
set -uo pipefail

[ $# -ge 2 ] || { echo "usage: run/mpirun.sh RANKS CONFIG... --run DIR [train options]" >&2; exit 64; }
ranks=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
flanmoe=${FLANMOE:-$root/build/flanmoe}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
# shellcheck disable=SC2086
exec mpirun -q --mca odls_base_sigkill_timeout 60 ${MPIRUN:-} -n "$ranks" "$flanmoe" train --set parallel.data=0 "$@"
