# Every write, sync, rename and removal of a run's saves is made to fail (test/faults): training goes on, the earlier checkpoints stay valid, and the next
# command ends in the bits of an undisturbed run. Sampled; ALL=1 takes every operation.
tiny_world
options=(--set train.steps=6 --set train.save_every=2 --set train.keep_last=1 --set eval.every=3)
ends 0 instruct.toml whole "${options[@]}"
ends 75 instruct.toml begun "${options[@]}" --max-steps 2

# broken KIND AT: continues a copy of `begun` with the AT-th operation under checkpoints/ broken; 1 when there are not so many operations.
broken() {
    local status
    rm -rf run fired && cp -r begun run
    FAULT_UNDER=$PWD/run/checkpoints FAULT_AT=$2 FAULT_KIND=$1 FAULT_LOG=$PWD/fired LD_PRELOAD=$SHIM train instruct.toml run "${options[@]}"
    status=$?
    all_valid run "$1 at operation $2"
    [ -e "$(last_checkpoint run)/manifest.json" ] || fault "$1 at operation $2: no checkpoint is left" run.log
    if [ $status = 74 ]; then
        grep -q 'flanmoe: the last checkpoint (step 6) could not be saved' run.log || fault "$1 at operation $2: exit code 74 for another reason" run.log
    elif [ $status != 0 ]; then
        fault "$1 at operation $2: exit code $status" run.log
    fi
    grep -q '"step":6' run/metrics.jsonl || fault "$1 at operation $2: training did not go on to the last step" run.log
    [ -e fired ] || return 1
    grep -q 'warning' run.log || fault "$1 at operation $2 ($(cat fired)): not a word about it" run.log
    ends 0 instruct.toml run "${options[@]}"
    same_run whole run
}

stride=${ALL:+1}
count=0
for ((at = 1; ; at += ${stride:-17})); do
    broken $([ $((at / ${stride:-17} % 2)) = 0 ] && echo eio || echo enospc) $at || break
    ((++count))
done
((count > 3)) || fault "only $count operations were broken"
lasting=0
for ((at = 5; ; at += ${stride:-61})); do
    broken $([ $((at % 2)) = 0 ] && echo eio+ || echo enospc+) $at || break
    ((++lasting))
done
((lasting > 0)) || fault 'no lasting fault was tried'
echo "        $count operations failed once, $lasting from there on"

# A disk that is really full, where this user may mount one.
if unshare -Urm true 2> /dev/null; then
    cat > full.sh << 'END'
mkdir disk && mount -t tmpfs -o size=2600k none disk || exit 99
cp -r "$1" disk/run && head -c 4m /dev/zero > disk/filler 2> /dev/null
shift
"$FLANMOE" train instruct.toml --run disk/run "$@" > full.log 2>&1
echo "full $?"
for c in disk/run/checkpoints/step-*; do "$FLANMOE" inspect --verify "$c" > /dev/null || echo "damaged $c"; done
rm disk/filler && mount -o remount,size=64m disk
"$FLANMOE" train instruct.toml --run disk/run "$@" > freed.log 2>&1
echo "freed $?"
cp disk/run/checkpoints/step-00000006/model.safetensors freed.safetensors
END
    result=$(unshare -Urm bash full.sh begun "${options[@]}" 2>&1)
    if [[ $result == *mount:* ]]; then
        echo "        a full disk was not tried: $result"
    else
        [ "$result" = $'full 74\nfreed 0' ] || fault "on a full disk: $result" full.log
        cmp -s freed.safetensors "$(last_checkpoint whole)/model.safetensors" || fault 'after a full disk the weights differ' freed.log
    fi
else
    echo "        a full disk was not tried: unshare may not make a file system here"
fi
