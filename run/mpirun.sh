#!/bin/bash
# One training stage on several ranks of this machine (or of those in MPI's host file), under Open MPI's mpirun.
#
# Usage:    run/mpirun.sh RANKS CONFIG... --run DIR [train options]       the other axes: --set parallel.expert=2 --set parallel.tensor=2
# Cost:     that of the stage; each rank holds a whole copy of what its axes do not divide. A rank computes with OMP_NUM_THREADS threads, by default its share of
#           this machine's cores, and is not bound to any.
# Expect:   the curve of one rank, but for rounding. Exit code 75: stopped by a signal or a limit and saved; the same command goes on, on any number of ranks.
# Stop:     Ctrl-C, or kill -TERM (INT, HUP, USR1, USR2) this script: mpirun gets USR1, which it passes on and waits for, however long saving takes. A TERM to mpirun
#           itself leaves the ranks a second, too short for saving a large model.
# MPIRUN    holds further options of mpirun, say MPIRUN="--hostfile hosts" or "--oversubscribe".
set -uo pipefail

[ $# -ge 2 ] || { echo "usage: run/mpirun.sh RANKS CONFIG... --run DIR [train options]" >&2; exit 64; }
ranks=$1
shift
[[ $ranks =~ ^[1-9][0-9]*$ ]] || { echo "mpirun.sh: RANKS must be a number from 1, not $ranks" >&2; exit 64; }
root=$(cd "$(dirname "$0")/.." && pwd)
source "$root/run/launch.sh"
flanmoe=${FLANMOE:-$root/build/flanmoe}
[ -x "$flanmoe" ] || { echo "mpirun.sh: $flanmoe is not there; build it with make, or name the program in FLANMOE" >&2; exit 66; }
command -v mpirun > /dev/null || { echo "mpirun.sh: there is no mpirun; install Open MPI (Debian: openmpi-bin)" >&2; exit 69; }
share=$(($(nproc) / ranks))
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((share > 0 ? share : 1))}
# With -q mpirun says nothing, not even why it starts nothing; so it starts something that says nothing first.
# shellcheck disable=SC2086
mpirun ${MPIRUN:-} -n "$ranks" true < /dev/null || { echo "mpirun.sh: mpirun cannot start $ranks ranks, as it says above; options for it go into MPIRUN" >&2; exit 69; }
# shellcheck disable=SC2086
launch mpirun -q --bind-to none ${MPIRUN:-} -n "$ranks" "$flanmoe" train --set parallel.data=0 "$@"
