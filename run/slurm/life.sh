# Sourced by the batch scripts, with `run` set to the run directory: what a life of the run came to, and whether the job goes back into the queue.
#
# What a launcher returns says little, so the run's own status counts, if it was written in this life: each one names its process and time, so none is like an older one.

# A task of an array is named by both numbers: the array's own number would stand for all of its tasks.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

status_text() { cat "$run/status.json" 2> /dev/null; }
step() { grep -o '"step": [0-9]*' "$run/status.json" 2> /dev/null | grep -o '[0-9]*' || echo 0; }
first_step=$(step) old_status=$(status_text)
says() { [ "$(status_text)" != "$old_status" ] && grep -q "\"state\": \"$1\"" "$run/status.json" 2> /dev/null; }

# end_life CODE: the launcher's. Ends the script.
end_life() {
    if [ "$1" = 0 ] && says done; then
        echo "flanmoe: done"
        exit 0
    elif [ "$1" = 75 ] || says stopped; then
        local lives=$run/lives-without-progress
        if [ "$(step)" -gt "$first_step" ]; then rm -f "$lives"; else echo x >> "$lives"; fi
        if [ "$(cat "$lives" 2> /dev/null | wc -l)" -ge 3 ]; then
            echo "flanmoe: three lives without a step; not started again, see $run/status.json" >&2
            exit 75
        fi
        echo "flanmoe: saved at step $(step); back into the queue"
        scontrol requeue "$job"
        exit 0
    fi
    echo "flanmoe: ended with $1 before the run was done, see $run/status.json" >&2
    exit $(($1 > 0 ? $1 : 1))
}
