# Killed at random moments, many of them inside a save, a run always resumes to the bits of the uninterrupted one. KILLS=100 for the long form, SEED for
# another draw. Three of four kills come from the shim (test/faults) at a random file
# operation, the others from a clock. A run that reaches its
# end is compared and begun anew until there were enough kills.
tiny_world
kills=${KILLS:-12} RANDOM=${SEED:-1}
options=(--set train.steps=16 --set train.save_every=2 --set eval.every=6)
ends 0 instruct.toml whole "${options[@]}"

killed=0 inside=0 first=0 runs=1 lives=0
mkdir run
while ((killed < kills && lives < 20 * kills)); do
    ((++lives))
    rm -f fired
    before=$(last_checkpoint run 2> /dev/null)
    if ((lives % 4)); then
        # Two of four lives end at an operation on checkpoints, one at any operation of the run: metrics, status and config included.
        under=run/checkpoints at=$((1 + RANDOM % 150))
        [ $((lives % 4)) != 1 ] && [ -d $under ] || under=run at=$((1 + RANDOM % (lives == 1 ? 60 : 400)))
        FAULT_UNDER=$PWD/$under FAULT_AT=$at FAULT_KIND=$( ((RANDOM % 2)) && echo kill || echo kill-after) FAULT_LOG=$PWD/fired LD_PRELOAD=$SHIM \
            train instruct.toml run "${options[@]}" 2> /dev/null
        status=$?
    else
        "$FLANMOE" train instruct.toml --run run "${options[@]}" > run.log 2>&1 < /dev/null &
        process=$!
        while ((RANDOM % 5)) && kill -0 $process 2> /dev/null && ! grep -q '^step' run.log; do sleep 0.01; done
        sleep "0.$(printf '%03d' $((RANDOM % 300)))"
        kill -KILL $process 2> /dev/null
        wait $process 2> /dev/null
        status=$?
    fi
    if [ $status = 137 ]; then
        ((++killed))
        if compgen -G 'run/checkpoints/.tmp-*' > /dev/null; then ((++inside)); fi
        if [ -z "$before" ] && [ -z "$(last_checkpoint run 2> /dev/null)" ]; then ((++first)); fi
        all_valid run "after kill $killed"
    elif [ $status = 0 ]; then
        same_run whole run
        rm -rf run && mkdir run && ((++runs))
    else
        fault "exit code $status in life $lives" run.log
        break
    fi
done
ends 0 instruct.toml run "${options[@]}"
same_run whole run
((killed >= kills)) || fault "only $killed kills in $lives lives"
((first > 0 && inside > 0)) || fault "no kill before the first save ($first) or inside one ($inside)"
echo "        $killed kills, $inside of them inside a save, $first before the first save; $runs runs compared"
