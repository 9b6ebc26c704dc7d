# Losses and gradients that are not finite, and spikes: what every policy does, and that the weights never take part.
tiny_world
options=(--set train.steps=60 --set train.save_every=5 --set eval.every=0 --set data.validation=[])
# A rate that throws the weights so far off that the next losses overflow. What was applied before is finite, and so is every checkpoint.
wild=(--set optimizer.learning_rate=1e25 --set optimizer.schedule='"constant"' --set optimizer.warmup_steps=0)

ends 78 instruct.toml stop "${options[@]}" "${wild[@]}" --set train.non_finite='"stop"' --set train.save_every=1
grep -qE 'flanmoe: step [0-9]+: .* is not finite or overflows; stopped because train.non_finite is "stop"' stop.log || fault 'stop does not say why' stop.log
grep -q '"state": "failed"' stop/status.json || fault 'status.json does not say failed' stop/status.json
all_finite stop

ends 78 instruct.toml skip "${options[@]}" "${wild[@]}" --set train.max_skips=4 --set train.save_every=1
[ "$(grep -c 'the step is skipped' skip.log)" = 4 ] || fault 'not 4 steps were skipped' skip.log
grep -q 'the 5th such step in a row (train.max_skips)' skip.log || fault 'skip does not say why it stopped' skip.log
all_finite skip
[ "$(grep -o '"skipped":[0-9]*' skip/metrics.jsonl | tail -1)" = '"skipped":4' ] || fault 'metrics.jsonl does not count the skipped steps'
# The weights that the skipped steps began with are those they ended with.
saved=$(find skip/checkpoints -name 'step-*' | sort)
cmp -s $(sed 's|$|/model.safetensors|' <<< "$saved") || fault 'a skipped step changed the weights'

ends 78 instruct.toml rollback "${options[@]}" "${wild[@]}" --set train.non_finite='"rollback"' --set train.save_every=1 --set train.max_rollbacks=2
[ "$(grep -c 'going back to the last checkpoint' rollback.log)" = 2 ] || fault 'not 2 rollbacks were made' rollback.log
grep -q 'after 2 rollbacks (train.max_rollbacks)' rollback.log || fault 'rollback does not say why it stopped' rollback.log
all_finite rollback
ends 78 instruct.toml nowhere "${options[@]}" "${wild[@]}" --set train.non_finite='"rollback"' --set train.save_every=0
grep -q 'there is no checkpoint to go back to yet' nowhere.log || fault 'a rollback without a checkpoint does not say so' nowhere.log

# Weights that come in with a NaN: not one step is applied.
ends 75 instruct.toml healthy "${options[@]}" --max-steps 1
cp -r "$(last_checkpoint healthy)" sick
rm -rf sick/manifest.json sick/training
printf '\x00\x00\xc0\x7f' | dd of=sick/model.safetensors bs=4 seek=$(($(stat -c %s sick/model.safetensors) / 4 - 20000)) conv=notrunc status=none
ends '78|80' instruct.toml infected "${options[@]}" --set train.start_from='"sick"' --set train.max_skips=3

# One bad batch: 160 times the same example, four examples of noise, and the same again. The loss has fallen by then, so the noise is a spike: passed over
# with skip, left behind with rollback, the end of the run with stop.
yes '{"inputs":"which of the small things is it","targets":"this one"}' | head -160 > spike.jsonl
for i in 1 2 3 4; do echo '{"inputs":"qx 7 zv 1 jk","targets":"wq zx 93 kj vb 20 qq xz"}' >> spike.jsonl; done
yes '{"inputs":"which of the small things is it","targets":"this one"}' | head -160 >> spike.jsonl
spiky=(--set data.train='["spike.jsonl"]' --set data.shuffle=false --set data.packing=false --set train.spike_factor=1.5)
ends 0 instruct.toml spike-skip "${options[@]}" "${spiky[@]}" --set train.spike='"skip"'
[ "$(grep -cE 'step 40: loss .* is above 1.5 x its running mean .*; the step is skipped' spike-skip.log)" = 1 ] || fault 'not one spike was skipped' spike-skip.log
ends 0 instruct.toml spike-rollback "${options[@]}" "${spiky[@]}" --set train.spike='"rollback"'
[ "$(grep -cE 'step 40: loss .* is above .*; going back to the last checkpoint' spike-rollback.log)" = 1 ] || fault 'not one spike was rolled back' spike-rollback.log
[ "$(grep -c '"kind":"train"' spike-rollback/metrics.jsonl)" = 60 ] || fault 'metrics.jsonl of the rolled-back run does not have one record a step'
ends 78 instruct.toml spike-stop "${options[@]}" "${spiky[@]}" --set train.spike='"stop"'
grep -q 'flanmoe: step 40: .* stopped because train.spike is "stop"' spike-stop.log || fault 'a spike did not stop the run' spike-stop.log
for run in spike-skip spike-rollback spike-stop; do all_finite $run; done

# A run that stops after a rollback goes on to the same bits.
ends 75 instruct.toml spike-parts "${options[@]}" "${spiky[@]}" --set train.spike='"rollback"' --max-steps 43
ends 0 instruct.toml spike-parts "${options[@]}" "${spiky[@]}" --set train.spike='"rollback"'
same_run spike-rollback spike-parts

# Nobody reads the log any more: training goes on.
"$FLANMOE" train span.toml --run unread --set train.steps=30 --set train.log_every=1 2>&1 | head -1 > unread.log
grep -q '"state": "done"' unread/status.json || fault 'a closed pipe ends training' unread/status.json
