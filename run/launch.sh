# Sourced by the scripts that start mpirun, before all else: from then on whatever asks this shell to stop (USR1, USR2, TERM, INT, HUP) is a request to the ranks.
#
# It reaches mpirun as USR1, which mpirun passes on and waits for; TERM and INT of its own it would follow with a kill after a second. What comes before the ranks are
# there, mpirun loses: for them there is a file then (FLANMOE_STOP_FILE).
launched=''
FLANMOE_STOP_FILE=$(mktemp -d)/stop
export FLANMOE_STOP_FILE
trap ': > "$FLANMOE_STOP_FILE"; [ -z "$launched" ] || kill -USR1 "$launched" 2> /dev/null' USR1 USR2 TERM INT HUP
trap 'rm -rf "$(dirname "$FLANMOE_STOP_FILE")"' EXIT

# launch COMMAND...: runs it and returns its exit code. A session of its own keeps a terminal's Ctrl-C from it, and a shell runs its traps only while it waits, so the
# command runs behind it.
launch() {
    local status
    setsid "$@" < /dev/null &
    launched=$!
    while :; do
        wait "$launched"
        status=$?
        kill -0 "$launched" 2> /dev/null || break
    done
    [ $status -le 128 ] || { wait "$launched"; status=$?; }  # it may have ended while a trap interrupted the wait
    return $status
}
