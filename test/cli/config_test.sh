# What a config file may not say, with file, line, key, nearest name and exit code.
printf '[train]\nsteps = 5\n' > good.toml
printf '[train]\n\nstpes = 5\n' > unknown_key.toml
printf '[trian]\nsteps = 5\n' > unknown_section.toml
printf '[train]\nsteps = "five"\n' > wrong_type.toml
printf '[train]\nsteps = -5\n' > out_of_range.toml
printf '[moe]\nexperts = 4\n' > inconsistent.toml
printf '[train\nsteps = 5\n' > not_toml.toml
printf '[train]\nsteps = 5\n\xff\xfe\n' > not_utf8.toml
mkdir folder.toml

expect 0 '^steps = 5$' "$FLANMOE" config good.toml
expect 0 '^steps = 7$' "$FLANMOE" config good.toml --set train.steps=7
expect 0 '^learning_rate = ' "$FLANMOE" config --options
expect 0 'sees the future' "$FLANMOE" config "$ROOT/configs/model/toy.toml" "$ROOT/configs/model/toy-expert-choice.toml" --set 'moe.decoder.kind="expert_choice"' --set moe.decoder.force_causal=true
refuse 64 'unknown_key.toml:3: unknown key train.stpes \(did you mean train.steps\?\)' "$FLANMOE" config good.toml unknown_key.toml
refuse 64 'unknown_section.toml:1: unknown section \[trian\] \(did you mean train\?\)' "$FLANMOE" config unknown_section.toml
refuse 64 'wrong_type.toml:2: train.steps must be an integer' "$FLANMOE" config wrong_type.toml
refuse 64 'out_of_range.toml:2: train.steps must be at least 1, not -5' "$FLANMOE" config out_of_range.toml
refuse 64 'set moe.every = 2' "$FLANMOE" config inconsistent.toml
refuse 64 'not_toml.toml:1: not valid TOML' "$FLANMOE" config not_toml.toml
refuse 64 'not_utf8.toml:[23]: not valid TOML' "$FLANMOE" config not_utf8.toml
refuse 64 'unknown key train.stpes \(did you mean train.steps\?\)' "$FLANMOE" config --set train.stpes=5
refuse 64 'unknown key moe.top_k \(did you mean moe.k\?\)' "$FLANMOE" config --set moe.top_k=2
refuse 66 'missing.toml' "$FLANMOE" config missing.toml
refuse 66 'folder.toml is a directory' "$FLANMOE" config folder.toml

# The benchmark's target length: of the config, solved for span corruption, or refused.
cat > bench.toml <<'TOML'
[model]
vocab_size = 64
d_model = 16
heads = 2
d_kv = 8
d_ff = 16
encoder_layers = 1
decoder_layers = 1
[data]
encoder_length = 512
batch_rows = 1
TOML
expect 0 '"target": 114,' "$FLANMOE" bench bench.toml --steps 1 --warmup 0 --matmul-size 64 --json
expect 0 '"target": 512,' "$FLANMOE" bench bench.toml --set data.objective=prefix_lm --steps 1 --warmup 0 --matmul-size 64 --json
refuse 64 'data.decoder_length is 0' "$FLANMOE" bench bench.toml --set data.objective=instruct --steps 1
refuse 64 '-1 not in range' "$FLANMOE" bench bench.toml --target -1

# A sparse model beside its dense twin; what cannot be compared is refused.
twin=(bench bench.toml --set moe.experts=4 --set moe.every=1 --twin --steps 1 --warmup 1 --source 16 --target 8)
expect 0 '"source": 16, "target": 8, "experts": 4' "$FLANMOE" "${twin[@]}" --json
expect 0 'sparse over dense and extra bytes' "$FLANMOE" "${twin[@]}"
# Two layers of 4 experts (wi and wo of 16 x 16) and a router (4 x 16) beside a dense FFN of width 18, which counts the router's FLOPs too;
# 16 bytes a number: weight, gradient and AdamW's two moments in f32.
"$FLANMOE" "${twin[@]}" --json --set optimizer.kind=adamw > twin.json
expect 0 "\"extra_bytes\": $((2 * (4 * 2 * 16 * 16 + 4 * 16 - 2 * 16 * 18) * 16))," cat twin.json
refuse 64 'dense and its own twin' "$FLANMOE" bench bench.toml --twin
expect 64 'dense and its own twin' "$FLANMOE" "${twin[@]}" --set moe.dense_twin=true
refuse 64 'not the same parts to freeze' "$FLANMOE" "${twin[@]}" --set 'train.freeze=["experts"]'
refuse 64 'matmul-size' "$FLANMOE" "${twin[@]}" --matmul-size 64

# The device.
refuse 64 'say the same thing twice' "$FLANMOE" bench bench.toml --device cpu --set train.device=cuda
refuse 64 'tpu not in {cpu,cuda}' "$FLANMOE" bench bench.toml --device tpu
refuse 64 'tpu not in {cpu,cuda}' "$FLANMOE" generate nowhere --device tpu
refuse 64 'f16 not in {f32,bf16,f64}' "$FLANMOE" eval nowhere nothing.jsonl --dtype f16
refuse 64 'f64 runs on the CPU alone' "$FLANMOE" generate nowhere --device cuda --dtype f64

# The resolved config loads to itself.
"$FLANMOE" config good.toml --set moe.experts=4 --set moe.every=2 --set moe.router=gshard > resolved.toml
expect 0 '^k = 2$' "$FLANMOE" config resolved.toml
"$FLANMOE" config resolved.toml > again.toml
expect 0 '^$' cmp resolved.toml again.toml
