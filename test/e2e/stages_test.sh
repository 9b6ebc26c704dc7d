# Modes of training: frozen parts keep their bits and resume exactly, twins are dense, optimizer state goes from stage to stage, what does not fit is refused.
tiny_world
sed -i 's/warmup_steps = 5/warmup_steps = 1/' span.toml instruct.toml
ends 0 span.toml parent --set train.steps=6 --set eval.every=0
start=(--set 'train.start_from="parent"' --set train.steps=8 --set train.save_every=4 --set train.gradient_clip=0.5)

# Names of the tensors of a directory or file.
tensors() { "$FLANMOE" inspect --json "$1" | sed -nE 's/^ +"((shared|encoder|decoder|lm_head)[^"]*\.weight[^"]*)": .*/\1/p'; }

# frozen PART PATTERN: the tensors that match the pattern are those of the parent, all others are not, and no optimizer state is held for them.
frozen() {
    local run=frozen-$1 equal all
    ends 0 instruct.toml "$run" "${start[@]}" --set "train.freeze=[\"$1\"]"
    "$FLANMOE" inspect "$(last_checkpoint parent)" --diff "$(last_checkpoint "$run")" --all > diff.log 2>&1
    equal=$(sed -nE 's/^([0-9]+) tensors are equal.*/\1/p' diff.log) all=$(tensors "$(last_checkpoint parent)" | grep -cE "$2")
    [ "$equal" = "$all" ] || fault "freezing $1: $equal tensors are equal to the parent's, not $all" diff.log
    ! grep -E '^(shared|encoder|decoder|lm_head)' diff.log | cut -d' ' -f1 | grep -qE "$2" || fault "freezing $1: a frozen tensor changed" diff.log
    tensors "$(last_checkpoint "$run")/training/optimizer.safetensors" > slots.log
    [ -s slots.log ] && ! grep -qE "$2" slots.log || fault "freezing $1: optimizer state is held for it" slots.log
    # Stopped and gone on with: the same bits.
    ends 75 instruct.toml "$run-parts" "${start[@]}" --set "train.freeze=[\"$1\"]" --max-steps 3
    ends 0 instruct.toml "$run-parts" "${start[@]}" --set "train.freeze=[\"$1\"]"
    same_run "$run" "$run-parts"
}
frozen gate '\.router\.'
frozen experts '\.expert_'
frozen moe '\.router\.|\.expert_'
frozen non_moe '^shared|^lm_head|norm|Attention|mlp\.w[io]\.|DenseReluDense'
ends 64 instruct.toml all "${start[@]}" --set 'train.freeze=["moe", "non_moe"]'
grep -q 'flanmoe: train.freeze freezes every parameter' all.log || fault 'freezing everything is not refused' all.log
ends 64 instruct.toml all "${start[@]}" --set moe.experts=0 --set 'train.freeze=["gate"]'
grep -q 'flanmoe: train.freeze names gate, but the model has nothing of that kind' all.log || fault 'freezing what is not there is not refused' all.log

# Optimizer state of the stage before: taken over, or begun anew, and what was frozen then begins anew.
ends 0 instruct.toml fresh "${start[@]}"
ends 0 instruct.toml kept "${start[@]}" --set train.reset_optimizer=false
grep -q 'going on with its optimizer state after 6 updates: [0-9]* slots taken over, 0 begin anew, 0 are of' kept.log || fault 'optimizer state was not taken over' kept.log
cmp -s "$(last_checkpoint fresh)/model.safetensors" "$(last_checkpoint kept)/model.safetensors" && fault 'optimizer state that was taken over changes nothing'
ends 75 instruct.toml kept-parts "${start[@]}" --set train.reset_optimizer=false --max-steps 3
ends 0 instruct.toml kept-parts "${start[@]}" --set train.reset_optimizer=false
same_run kept kept-parts
ends 0 instruct.toml thawed --set 'train.start_from="frozen-experts"' --set train.steps=4 --set train.reset_optimizer=false
grep -qE 'after 8 updates: [0-9]+ slots taken over, 16 begin anew, 0 are of' thawed.log || fault 'state of what was frozen does not begin anew' thawed.log
ends 0 instruct.toml refrozen --set 'train.start_from="kept"' --set train.steps=4 --set train.reset_optimizer=false --set 'train.freeze=["experts"]'
grep -qE 'after 14 updates: [0-9]+ slots taken over, 0 begin anew, 16 are of what is not trained' refrozen.log || fault 'the count of updates does not go through three stages' refrozen.log

# A sparse run cannot start from a dense model as it is.
ends 0 span.toml flat --set moe.experts=0 --set train.steps=2
ends 80 span.toml steep --set 'train.start_from="flat"' --set train.steps=2
grep -q 'is a dense model, this run has 4 experts; make a sparse one of it first: flanmoe convert flat OUT --experts 4' steep.log || fault 'upcycling is not named' steep.log
# A capacity that leaves no slot in rows as long as the objective makes them.
ends 64 span.toml narrow --set moe.experts=64 --set moe.min_capacity=0 --set train.steps=2
grep -q 'moe.decoder.capacity_factor = 1.25 leaves no slot' narrow.log || fault 'a decoder without slots is not refused' narrow.log

# The dense twin, by one option.
ends 0 span.toml twin --set moe.dense_twin=true --set train.steps=2
grep -q 'dense twin of 4 experts in 2 layers: FLOPs per token in layers differ by' twin.log || fault 'the twin is made silently' twin.log
expect 0 '"model_type": "t5"' cat "$(last_checkpoint twin)/config.json"
ends 0 span.toml twin --set moe.dense_twin=true --set train.steps=3
grep -q 'resuming at step 2' twin.log || fault 'the run of a twin does not go on' twin.log
expect 0 'd_ff by layer: 64,128' "$FLANMOE" inspect "$(ends 0 span.toml twin-2 --set moe.dense_twin=true --set 'moe.router="gshard"' --set train.steps=2; last_checkpoint twin-2)"
expect 0 . "$FLANMOE" generate twin-2 --prompt 'the red fox' --max-new-tokens 2

# Models that do not fit are refused before anything is read or allocated.
refuse 71 'the model.s [0-9]+ parameters need about [0-9.]+ TB of memory \(.* of weights, .* of gradients, .* of optimizer state, .* of activations\), but only .* are available; use a smaller model' \
    "$FLANMOE" bench "$ROOT/configs/model/switch-c.toml"
refuse 71 'need about [34]\.[0-9]+ TB of memory' "$FLANMOE" train "$ROOT/configs/model/switch-xxl.toml" --run big --set train.dtype=bf16 --set data.micro_batch_rows=1 --set train.seed=1 \
    --set data.train=shards --set data.tokenizer=vocabulary
refuse 71 'data.micro_batch_rows=[0-9]+ would fit' "$FLANMOE" bench "$ROOT/configs/model/t5-small.toml" --set data.batch_rows=100000
