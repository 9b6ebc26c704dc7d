# Stopping in good order: signals and limits save and exit with 75, say so in status.json, and the same command goes on to the same bits. A run directory
# takes one process and one config.
tiny_world
options=(--set train.steps=300 --set train.save_every=0 --set eval.every=0 --set data.validation=[])
ends 0 span.toml whole "${options[@]}"
for signal in USR1 USR2 TERM INT; do
    # A shell starts its background jobs with INT ignored; the program takes it all the same.
    "$FLANMOE" train span.toml --run run "${options[@]}" > run.log 2>&1 < /dev/null &
    process=$!
    wait_for run $((1 + $(cat run/metrics.jsonl 2> /dev/null | wc -l)))
    kill -$signal $process
    wait $process
    status=$?
    [ $status = 75 ] || fault "$signal: exit code $status, expected 75" run.log
    grep -q '"state": "stopped"' run/status.json || fault "$signal: status.json does not say stopped" run/status.json
    grep -q "\"message\": \"signal $signal\"" run/status.json || fault "$signal: status.json does not name the signal" run/status.json
    grep -q "stopped by signal $signal; saved" run.log || fault "$signal: the end does not say what happened" run.log
    all_valid run "after $signal"
done
ends 75 span.toml run "${options[@]}" --max-steps 2
grep -q 'train.max_steps' run/status.json || fault '--max-steps is not named' run/status.json
ends 75 span.toml run "${options[@]}" --max-minutes 0.00001
grep -q 'train.max_minutes' run/status.json || fault '--max-minutes is not named' run/status.json
ends 0 span.toml run "${options[@]}"
grep -q '"state": "done"' run/status.json || fault 'status.json does not say done' run/status.json
same_run whole run
ends 0 span.toml run "${options[@]}"  # nothing left to do
same_run whole run

# One process at a time; the first one is not disturbed.
"$FLANMOE" train span.toml --run busy "${options[@]}" --set train.steps=100000 > busy.log 2>&1 < /dev/null &
process=$!
wait_for busy 1
refuse 73 "process $process on .* works in the run directory busy" "$FLANMOE" train span.toml --run busy "${options[@]}" --set train.steps=100000
kill -0 $process || fault 'the first job died' busy.log
kill -TERM $process
wait $process
[ $? = 75 ] || fault 'the first job did not end in good order' busy.log

# One config.
refuse 73 'run belongs to a run with another config \(model.d_ff was 64 and is 128\)' "$FLANMOE" train span.toml --run run "${options[@]}" --set model.d_ff=128
refuse 73 'train.seed was 0 and is 5' "$FLANMOE" train span.toml --run run "${options[@]}" --set train.seed=5
refuse 73 'cannot create the run directory span.toml: Not a directory; name another one' "$FLANMOE" train span.toml --run span.toml "${options[@]}"
mkdir -p foreign && : > foreign/metrics.jsonl
refuse 73 'foreign holds metrics.jsonl but no config.toml' "$FLANMOE" train span.toml --run foreign "${options[@]}"
same_run whole run
