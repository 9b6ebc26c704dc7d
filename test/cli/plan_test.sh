# flanmoe plan: the best mesh or the config's, in tables and JSON, and one sentence for what cannot be.
models=$ROOT/configs/model
large=(plan "$models/st-moe-32b.toml" --set train.dtype=bf16 --set train.forward=bf16 --set data.batch_rows=2048 --set data.micro_batch_rows=16)

expect 0 '269,104,613,376 parameters, 35,' "$FLANMOE" "${large[@]}" --ranks 256
expect 0 '"ranks": 256, .*"fits": true' "$FLANMOE" "${large[@]}" --ranks 256 --json
expect 71 'flanmoe: a rank needs .* and a h100 has 77.0 GB for it; it fits on (64|128) h100 as ' "$FLANMOE" "${large[@]}" --ranks 8
expect 0 '8 h100, 8 a node, .*: 4 data x 1 expert x 2 tensor' "$FLANMOE" plan "$models/t5-small.toml" --set parallel.data=4 --set parallel.tensor=2
expect 0 '1 a100' "$FLANMOE" plan "$models/t5-small.toml" --gpu a100 --network ethernet

refuse 64 'multipl' "$FLANMOE" plan "$models/t5-small.toml" --set parallel.tensor=4 --ranks 6
refuse 64 '4 tensor ranks do not divide model.heads = 6' "$FLANMOE" plan "$models/t5-small.toml" --set parallel.tensor=4
refuse 64 'a dense model has no experts to divide' "$FLANMOE" plan "$models/t5-small.toml" --set parallel.expert=2
refuse 64 'not of b300' "$FLANMOE" plan "$models/t5-small.toml" --gpu b300
refuse 64 'not of string' "$FLANMOE" plan "$models/t5-small.toml" --network string
refuse 64 'files is required' "$FLANMOE" plan
