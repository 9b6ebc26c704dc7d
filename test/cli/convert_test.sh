# flanmoe convert: types, shards, upcycling with its check of the function, and what is refused; nothing half made stays.
tiny_world
sed -i 's/warmup_steps = 5/warmup_steps = 1/' span.toml instruct.toml
dense=(--set moe.experts=0 --set train.steps=4 --set train.save_every=2 --set eval.every=0)
ends 0 span.toml dense "${dense[@]}"
ends 0 span.toml sparse --set train.steps=4 --set eval.every=0
checkpoint=$(last_checkpoint dense)

# Copies: the newest checkpoint of a run, bit by bit; rounded and back; in shards.
expect 0 '^copy: t5, [0-9,]+ tensors, .* as f32 in 1 file$' "$FLANMOE" convert dense copy
cmp -s "$checkpoint/model.safetensors" copy/model.safetensors || fault 'a copy has other bits'
cmp -s "$checkpoint/spiece.model" copy/spiece.model || fault 'the vocabulary did not come along'
[ -e copy/training ] && fault 'optimizer state came along unasked'
expect 0 'manifest: the sizes and hashes' "$FLANMOE" inspect --verify copy
expect 0 'as bf16 in [0-9]+ files' "$FLANMOE" convert copy small --dtype bf16 --shard-gb 0.00005
expect 0 'BF16' "$FLANMOE" inspect small
expect 0 'manifest: the sizes and hashes' "$FLANMOE" inspect --verify small
expect 0 'as bf16 in 1 file' "$FLANMOE" convert small joined
expect 0 'as f32 in 1 file' "$FLANMOE" convert small widened --dtype f32
expect 0 . "$FLANMOE" generate joined --prompt 'the red fox' --max-new-tokens 3

refuse 64 '\-1 is not above 0' "$FLANMOE" convert dense other --shard-gb -1
refuse 64 'Value 0 not in range 1 to 65536' "$FLANMOE" convert dense other --experts 0
refuse 64 'the model is dense, so there is no routing to change' "$FLANMOE" generate dense --prompt a --set moe.dropless=true
refuse 64 'moe.experts is 4 in .* and cannot be changed' "$FLANMOE" generate sparse --prompt a --set moe.experts=8

# Upcycling.
expect 0 '^function: the parent.s at step 0 where nothing is dropped; largest difference of a logit' "$FLANMOE" convert dense gshard --experts 4 --router gshard
expect 0 '^4 experts in encoder layers \[1\] and decoder layers \[1\]: [0-9]+ tensors copied, 2 new$' "$FLANMOE" convert dense seeded --experts 4 --seed 3
expect 0 '^function: not the parent.s at step 0, because the encoder.s gates are raw probabilities' "$FLANMOE" convert dense switch --experts 4
expect 0 '^function: the parent.s at step 0' "$FLANMOE" convert dense normal --experts 4 --set moe.normalize=true --dtype bf16
expect 0 '^1 expert in encoder layers \[\] and decoder layers \[0, 1\]' "$FLANMOE" convert dense one --experts 1 --every 1 --set 'moe.encoder.layers=[]'
expect 0 '"model_type": "switch_transformers"' cat switch/config.json
expect 0 'manifest: the sizes and hashes' "$FLANMOE" inspect --verify switch
"$FLANMOE" convert dense again --experts 4 --router gshard --no-check > again.log 2>&1 || fault 'converting without the check failed' again.log
grep -q function again.log && fault 'the check ran though it was switched off' again.log
cmp -s gshard/model.safetensors again/model.safetensors || fault 'the same seed gave another router'
cmp -s switch/model.safetensors seeded/model.safetensors && fault 'another seed gave the same router'

# A stage that starts from it, with fresh optimizer state and with the parent's.
ends 0 instruct.toml tuned --set 'train.start_from="switch"' --set train.steps=4
expect 0 '2 new' "$FLANMOE" convert dense with_state --experts 4 --keep-optimizer
expect 0 'manifest: the sizes and hashes' "$FLANMOE" inspect --verify with_state
ends 0 span.toml kept --set 'train.start_from="with_state"' --set train.reset_optimizer=false --set train.steps=4 --max-steps 4
grep -q 'going on with its optimizer state after 4 updates: [0-9]* slots taken over, 2 begin anew, 0 are of' kept.log || fault 'the state of the parent was not taken over' kept.log
ends 80 span.toml bare --set 'train.start_from="switch"' --set train.reset_optimizer=false
grep -q 'flanmoe: switch holds no optimizer state to go on with; set train.reset_optimizer = true' bare.log || fault 'missing optimizer state is not named' bare.log
ends 80 span.toml mixed --set 'train.start_from="with_state"' --set train.reset_optimizer=false --set 'optimizer.kind="adamw"'
grep -q 'another kind of optimizer' mixed.log || fault 'state of another optimizer is not refused' mixed.log

# Another routing rule for one evaluation.
expect 0 . "$FLANMOE" eval sparse toy/instruct/valid/past.jsonl --no-generation --set moe.dropless=true
refuse 64 'only options of \[moe\]' "$FLANMOE" eval sparse toy/instruct/valid/past.jsonl --no-generation --set model.d_ff=3
refuse 64 'unknown key moe.capacty' "$FLANMOE" eval sparse toy/instruct/valid/past.jsonl --no-generation --set moe.capacty=3
one=$("$FLANMOE" eval sparse toy/instruct/valid/past.jsonl --no-generation --set moe.dropless=true) few=$("$FLANMOE" eval sparse toy/instruct/valid/past.jsonl --no-generation --set moe.capacity=1)
[ "$one" != "$few" ] || fault 'the capacity of an evaluation changes nothing'

# Refusals.
refuse 73 'copy exists already' "$FLANMOE" convert dense copy
refuse 66 'nothing' "$FLANMOE" convert nothing out
refuse 64 'the model has 4 experts already' "$FLANMOE" convert sparse out --experts 8
refuse 64 '--every is for upcycling; give --experts too' "$FLANMOE" convert dense out --every 2
refuse 64 'experts of width 32 cannot be copies of the feed-forward of encoder layer 1, whose width is 64' "$FLANMOE" convert dense out --experts 4 --set moe.expert_d_ff=32
refuse 64 'another activation' "$FLANMOE" convert dense out --experts 4 --set 'moe.activation="silu"'
refuse 64 'only options of \[moe\]' "$FLANMOE" convert dense out --experts 4 --set model.d_ff=32
refuse 64 'no layer is sparse' "$FLANMOE" convert dense out --experts 4 --every 5
refuse 64 'moe.encoder.k is 2, more than the 1 experts' "$FLANMOE" convert dense out --experts 1 --router gshard
refuse 64 'did you mean gshard' "$FLANMOE" convert dense out --experts 4 --router gshrad
refuse 64 '--dtype' "$FLANMOE" convert dense out --dtype f16
cp -r copy cut && truncate -s 20000 cut/model.safetensors && rm cut/manifest.json
refuse 80 'cut/model.safetensors' "$FLANMOE" convert cut out
cp -r copy other && rm other/manifest.json && sed -i 's/"d_kv": 8/"d_kv": 16/' other/config.json
refuse 80 'has shape \[32, 32\] where \[64, 32\] is expected' "$FLANMOE" convert other out
touch file
refuse 73 'file' "$FLANMOE" convert copy file/out
[ -e out ] && fault 'a refused conversion left its directory'
[ -z "$(find . -maxdepth 1 -name '.tmp-*')" ] || fault 'a temporary directory was left'

# Every file operation fails or ends the process: the directory is there and whole, or it is not there; and the next try is undisturbed.
count=0
for ((at = 1; ; ++at)); do
    kinds=(enospc kill eio kill-after)
    rm -rf room fired && mkdir room
    # In a shell of its own, which keeps the word of a kill to itself.
    (FAULT_UNDER=$PWD/room FAULT_AT=$at FAULT_KIND=${kinds[at % 4]} FAULT_LOG=$PWD/fired LD_PRELOAD=$SHIM "$FLANMOE" convert copy room/out > broken.log 2>&1; exit $?) 2> /dev/null
    status=$?
    [ -e fired ] || break
    ((++count))
    if [ -e room/out ]; then
        "$FLANMOE" inspect --verify room/out > verify.log 2>&1 || fault "${kinds[at % 4]} at operation $at left a damaged directory" verify.log
    else
        [ $status != 0 ] || fault "${kinds[at % 4]} at operation $at: success, but no directory" broken.log
        "$FLANMOE" convert copy room/out > broken.log 2>&1 || fault "the next try after ${kinds[at % 4]} at operation $at failed" broken.log
    fi
    [ -z "$(find room -maxdepth 1 -name '.tmp-*')" ] || fault "a temporary directory stayed after ${kinds[at % 4]} at operation $at"
done
((count > 10)) || fault "only $count operations were broken"
