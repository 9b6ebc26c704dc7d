# flanmoe plan: the best mesh or the config's, in tables and JSON, and one sentence for what cannot be.
models=$ROOT/configs/model
large=(plan "$models/st-moe-32b.toml" --set train.dtype=bf16 --set train.forward=bf16 --set data.batch_rows=2048 --set data.micro_batch_rows=16)

expect 0 '269,104,613,376 parameters, 35,' "$FLANMOE" "${large[@]}" --ranks 256
expect 0 '"ranks": 256, .*"fits": true' "$FLANMOE" "${large[@]}" --ranks 256 --json
expect 71 'flanmoe: a rank needs .* and a h100 has 77.0 GB for it; it fits on (64|128) h100 as ' "$FLANMOE" "${large[@]}" --ranks 8
expect 0 '8 h100, 8 a node, .*: 4 data x 1 expert x 2 tensor' "$FLANMOE" plan "$models/t5-small.toml" --set parallel.data=4 --set parallel.tensor=2
expect 0 '1 a100' "$FLANMOE" plan "$models/t5-small.toml" --gpu a100 --network ethernet

expect 0 '32 h100, .*32 data x 1 expert x 1 tensor' "$FLANMOE" plan "$models/t5-small.toml" --set data.batch_rows=16 --set data.micro_batch_rows=0 --set parallel.data=32
expect 71 'a rank needs .*; it fits on (224|448) h100 as ' "$FLANMOE" "${large[@]}" --ranks 7
expect 71 'nor does it fit on more, up to 100000; use shorter rows' "$FLANMOE" "${large[@]}" --ranks 100000 --set data.batch_rows=200000 --set data.encoder_length=20000000 --set data.decoder_length=100

# What is a mean only is said.
dropless=(plan "$ROOT/configs/model/switch-small.toml" --set moe.router=dropless --set data.batch_rows=8 --set data.micro_batch_rows=0)
expect 0 'dropless    rows are taken to go evenly to the ranks of the experts: figures are means' "$FLANMOE" "${dropless[@]}" --set parallel.expert=2
expect 0 '"even_rows_assumed": true' "$FLANMOE" "${dropless[@]}" --set parallel.expert=2 --json
expect 0 '"even_rows_assumed": false' "$FLANMOE" "${dropless[@]}" --set parallel.data=2 --json
expect 0 '"even_rows_assumed": false' "$FLANMOE" "${dropless[@]}" --set moe.router=switch --set parallel.expert=2 --json

refuse 64 'no mesh of 100000 ranks can run this config: data.batch_rows = 2048 is too few rows' "$FLANMOE" "${large[@]}" --ranks 100000
refuse 64 'multipl' "$FLANMOE" plan "$models/t5-small.toml" --set parallel.tensor=4 --ranks 6
refuse 64 '6 heads .model.heads. do not divide over parallel.tensor = 4 ranks' "$FLANMOE" plan "$models/t5-small.toml" --set parallel.tensor=4
refuse 64 'parallel.expert = 2 divides experts, but the model has none' "$FLANMOE" plan "$models/t5-small.toml" --set parallel.expert=2
refuse 64 'not of b300' "$FLANMOE" plan "$models/t5-small.toml" --gpu b300
refuse 64 'not of string' "$FLANMOE" plan "$models/t5-small.toml" --network string
refuse 64 'files is required' "$FLANMOE" plan
# What helps on as many devices is said first: smaller micro-batches on the mesh that was asked for, then activations computed again.
models=("$ROOT/configs/model")
expect 71 'it fits as 1 data x 32 expert x 16 tensor with data.micro_batch_rows = [0-9]+$' "$FLANMOE" plan "$models/glam-64b-64e.toml" --set parallel.tensor=16 --set parallel.expert=32 --ranks 512
expect 71 'it fits as .* and train.recompute = (cheap|full)$' "$FLANMOE" plan "$models/t5-xl.toml" --ranks 1 --set data.batch_rows=1 --set data.encoder_length=32768
