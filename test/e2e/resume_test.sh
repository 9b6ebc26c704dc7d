# Stop and resume is exact: 40 steps at once, or 20, a stop, and 20 more: the same losses and the same bits of weights and optimizer, with dropout, jitter,
# packing and accumulation on.
tiny_world
for objective in span instruct; do
    for dtype in f32 bf16; do
        whole=$objective-$dtype-whole halves=$objective-$dtype-halves
        ends 0 $objective.toml $whole --set train.dtype="\"$dtype\""
        ends 75 $objective.toml $halves --set train.dtype="\"$dtype\"" --max-steps 20
        ends 0 $objective.toml $halves --set train.dtype="\"$dtype\""
        grep -q 'resuming at step 20' $halves.log || fault "$halves did not resume at step 20" $halves.log
        [ "$(grep -c '"kind":"train"' $whole/metrics.jsonl)" = 40 ] || fault "$whole recorded other than 40 steps"
        same_run $whole $halves
    done
done

# Loss-free balancing: the biases, which only the loads of past steps know, come back with the checkpoint, and they have moved.
loss_free=(--set moe.router='"loss_free"' --set moe.balance_bias_rate=0.01 --set train.balance_loss=0.0)
ends 0 span.toml loss-free-whole "${loss_free[@]}"
ends 75 span.toml loss-free-halves "${loss_free[@]}" --max-steps 13
ends 0 span.toml loss-free-halves "${loss_free[@]}"
same_run loss-free-whole loss-free-halves
"$FLANMOE" inspect "$(last_checkpoint loss-free-whole)" --json > biases.json
grep -q 'e_score_correction_bias' biases.json || fault 'the checkpoint has no balance biases' biases.json

# What must not be equal is not: another seed, another precision.
ends 0 span.toml other --set train.seed=1
cmp -s "$(last_checkpoint other)/model.safetensors" "$(last_checkpoint span-f32-whole)/model.safetensors" && fault 'two seeds gave the same weights'
cmp -s "$(last_checkpoint span-bf16-whole)/model.safetensors" "$(last_checkpoint span-f32-whole)/model.safetensors" && fault 'f32 and bf16 gave the same weights'

# Optimizer state of AdamW, stopped at a step that is no multiple of anything, preparing nothing ahead.
ends 0 instruct.toml adamw-whole --set optimizer.kind='"adamw"' --set train.dtype='"bf16"' --set train.gradient_clip=0.5
for steps in 7 13; do ends 75 instruct.toml adamw-parts --set optimizer.kind='"adamw"' --set train.dtype='"bf16"' --set train.gradient_clip=0.5 --max-steps $steps; done
ends 0 instruct.toml adamw-parts --set optimizer.kind='"adamw"' --set train.dtype='"bf16"' --set train.gradient_clip=0.5 --set data.prefetch=0
same_run adamw-whole adamw-parts
