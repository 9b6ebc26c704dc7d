# Decoder-only models from text to answers: causal and prefix language modelling, instruction tuning on packed rows, exact resuming, generation and
# evaluation; with relative positions as GLaM has them, and as a Mixtral that Hugging Face's class opens.
tiny_world

# decoder NAME 'model lines' 'moe lines': NAME.toml, without data.
decoder() {
    cat > "$1.toml" << END
[model]
encoder_decoder = false
vocab_size = 512
d_model = 32
d_kv = 8
heads = 4
d_ff = 48
encoder_layers = 0
decoder_layers = 2
dropout = 0.1
$2
[moe]
experts = 4
$3
[data]
tokenizer = "vocabulary"
encoder_length = 0
decoder_length = 64
batch_rows = 4
micro_batch_rows = 2
validation_batches = 2
[train]
steps = 40
log_every = 1
save_every = 10
save_minutes = 0
tensorboard = false
[optimizer]
learning_rate = 0.01
warmup_steps = 5
schedule = "linear"
[eval]
every = 20
END
}
decoder glam $'activation = "gated_gelu"\nbias_per_layer = true' $'router = "gshard"\nevery = 2\nactivation = "gated_gelu"'
decoder prefix $'activation = "gated_gelu"\nbidirectional_prefix = true' $'router = "top_k"\nevery = 2\nshared_d_ff = 16'
decoder mixtral $'activation = "gated_silu"\nrotary = 1e4\nkv_heads = 2\nscale_attention = true' $'router = "top_k"\nevery = 1\nactivation = "gated_silu"\nnormalize = true\ndropless = true'
text=(--set data.objective='"causal_lm"' --set data.train='["shards"]' --set data.validation='["shards"]')
instruct=(--set data.objective='"instruct"' --set data.train='["toy/instruct/train"]' --set data.validation='["toy/instruct/valid"]' --set train.stage='"instruct"')

loss_of() { grep -o "\"kind\":\"validation\".*" "$1/metrics.jsonl" | grep -o '"loss":[0-9.]*' | sed -n "$2p" | cut -d: -f2; }

for model in glam prefix mixtral; do
    ends 0 $model.toml $model-text "${text[@]}" --set train.steps=120
    all_valid $model-text 'text'
    ends 0 $model.toml $model-whole "${instruct[@]}" --set train.start_from="\"$model-text\""
    ends 75 $model.toml $model-halves "${instruct[@]}" --set train.start_from="\"$model-text\"" --max-steps 17
    ends 0 $model.toml $model-halves "${instruct[@]}" --set train.start_from="\"$model-text\""
    grep -q 'resuming at step 17' $model-halves.log || fault "$model-halves did not resume at step 17" $model-halves.log
    same_run $model-whole $model-halves
    all_finite $model-whole
    expect 0 . "$FLANMOE" generate $model-whole --prompt 'who has the kite?' --prompt 'sort the words: b a' --max-new-tokens 5 --jsonl
    expect 0 '"output"' "$FLANMOE" generate $model-text --prompt 'the red fox' --continue --beams 3 --max-new-tokens 5 --jsonl
    expect 0 'sentiment' "$FLANMOE" eval $model-whole toy/eval/seen/sentiment.jsonl --max-new-tokens 5
done
ends 0 prefix.toml prefix-lm "${text[@]}" --set data.objective='"prefix_lm"'

# Text was learned: a model that guesses among 512 ids has a loss of 6.2, one that knows how often each comes about 5.
last=$(loss_of mixtral-text '$')
awk "BEGIN { exit !(${last:-9} < 4.5) }" || fault "the validation loss after 120 steps of text is ${last:-missing}" mixtral-text.log

# The checkpoint of the Mixtral shape is one of Hugging Face's, and its tensors have its names.
grep -q '"model_type": "mixtral"' "$(last_checkpoint mixtral-text)/config.json" || fault 'the rotary model is not written as a mixtral'
expect 0 'block_sparse_moe' "$FLANMOE" inspect "$(last_checkpoint mixtral-text)"
expect 0 'mixtral: 2 layers, decoder only, d_model 32, 4 heads x 8 \(2 of keys\), rotary 10000' "$FLANMOE" inspect "$(last_checkpoint mixtral-text)"

# Contradictions are refused in a sentence, before anything is made.
refuse 64 'needs an encoder' "$FLANMOE" train glam.toml --run none "${text[@]}" --set data.objective='"span_corruption"'
refuse 64 'a decoder-only model has no encoder' "$FLANMOE" train glam.toml --run none "${text[@]}" --set data.encoder_length=64
refuse 64 'causal_lm" is for decoder-only models' "$FLANMOE" train model.toml --run none "${text[@]}"
expect 80 'was trained with model.rotary = 10000' "$FLANMOE" train mixtral.toml --run other-theta "${text[@]}" --set model.rotary=500 --set train.start_from='"mixtral-text"'
