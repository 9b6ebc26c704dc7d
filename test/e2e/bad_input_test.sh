# What is wrong with data, vocabulary, checkpoints or run directory: one sentence that names it, the exit code of its kind, and nothing lost.
tiny_world
options=(--set train.steps=6 --set train.save_every=3 --set eval.every=0)
mkdir empty_folder
: > empty.jsonl
printf '{"inputs":"one","targets":"two"}\n{"inputs": oops\n{"targets":"x"}\n{"inputs":"a \xff","targets":"b"}\n' > malformed.jsonl
printf '{"inputs":"a \xff","targets":"b"}\n' > latin.jsonl

# wrong CODE PATTERN options...: `flanmoe train` with the instruct config refuses them. refuse allows two lines of information before the sentence here.
wrong() {
    local code=$1 pattern=$2 status
    shift 2
    rm -rf run
    train instruct.toml run "${options[@]}" "$@"
    status=$?
    [ $status = "$code" ] || fault "$*: exit code $status, expected $code" run.log
    grep -qE -- "^flanmoe: .*$pattern" run.log || fault "$*: the error must match: $pattern" run.log
    [ "$(grep -c '^flanmoe: ' run.log)" = 1 ] && [[ $(tail -1 run.log) == "flanmoe: "* ]] || fault "$*: not one sentence" run.log
    [ ! -e run/status.json ] || grep -q '"state": "failed"' run/status.json || fault "$*: status.json does not say failed"
}

# Data.
wrong 66 'nothing does not exist' --set 'data.train=["nothing"]'
wrong 66 'nothing does not exist' --set 'data.validation=["nothing"]'
wrong 65 'empty_folder holds no files ending in .jsonl' --set 'data.train=["empty_folder"]'
wrong 65 'empty.jsonl holds no examples' --set 'data.train=["empty.jsonl"]'
wrong 65 'malformed.jsonl:2 is not valid JSON .*; repair the line' --set 'data.train=["malformed.jsonl"]'
wrong 65 'latin.jsonl:1 is not valid UTF-8 at byte 13' --set 'data.train=["latin.jsonl"]'
wrong 65 'latin.jsonl holds no examples \(1 malformed lines\)' --set 'data.train=["latin.jsonl"]' --set 'data.malformed="skip"'
wrong 64 'set data.train to at least one path' --set 'data.train=[]'
wrong 65 'no example of toy/instruct/train fits into encoder_length 3' --set data.encoder_length=3 --set 'data.truncation="drop"'
ends 0 instruct.toml skipped "${options[@]}" --set 'data.train=["malformed.jsonl"]' --set 'data.malformed="skip"'
grep -q 'warning: data.train: 3 malformed lines are skipped' skipped.log || fault 'skipped lines are not counted' skipped.log
ends 0 instruct.toml short "${options[@]}" --set data.encoder_length=8 --set data.decoder_length=4
grep -qE 'warning: data.train: [0-9]+ of 3450 inputs are longer than data.encoder_length and lose their end' short.log || fault 'cut inputs are not counted' short.log
grep -qE 'warning: data.train: [0-9]+ of 3450 targets are longer than data.decoder_length and lose their end' short.log || fault 'cut targets are not counted' short.log
ends 0 instruct.toml dropped "${options[@]}" --set data.encoder_length=12 --set 'data.truncation="drop"'
grep -qE 'warning: data.train: [0-9]+ of [0-9]+ examples are too long and dropped' dropped.log || fault 'dropped examples are not counted' dropped.log
refuse 66 'toy/corpus is not a folder of token shards' "$FLANMOE" train span.toml --run run2 --set 'data.train=["toy/corpus"]'
refuse 65 'the input holds no text' "$FLANMOE" data shard empty.jsonl --tokenizer vocabulary --out none
cp -r shards flipped && printf '\x5a' | dd of=flipped/shard-00000.tokens bs=1 seek=900 conv=notrunc status=none
expect '65|79' 'flanmoe: .*flipped' "$FLANMOE" train span.toml --run run3 --set 'data.train=["flipped"]'

# Vocabulary.
wrong 64 'set data.tokenizer' --set 'data.tokenizer=""'
wrong 66 'no vocabulary at nothing' --set 'data.tokenizer="nothing"'
wrong 66 'no vocabulary at empty_folder/spiece.model' --set 'data.tokenizer="empty_folder"'
wrong 65 'model.toml is not a SentencePiece model' --set 'data.tokenizer="model.toml"'
wrong 64 'has 500 ids with its sentinels, but the model only 400 embedding rows; set model.vocab_size to 512' --set model.vocab_size=400
wrong 64 'ends texts with id 1, but the model with id 3' --set model.eos_id=3
"$FLANMOE" tokenizer train toy/vocabulary.txt --size 300 --out other > other.log 2>&1
refuse 64 'the shards in shards were made with another tokenizer' "$FLANMOE" train span.toml --run run4 --set 'data.tokenizer="other"'

# Checkpoints to start from, to evaluate and to generate with.
ends 0 instruct.toml good "${options[@]}"
checkpoint=$(last_checkpoint good)
bytes=$(stat -c %s "$checkpoint/model.safetensors")
copy() { rm -rf "$1" && cp -r "$checkpoint" "$1" && rm -rf "$1/manifest.json" "$1/training"; }
poke() { printf "$2" | dd of="$1" bs=1 seek="$3" conv=notrunc status=none; }
bad_model() {
    wrong "$1" "$2" --set "train.start_from=\"$3\""
    refuse "$1" "$2" "$FLANMOE" generate "$3" --prompt hello
    refuse "$1" "$2" "$FLANMOE" eval "$3" toy/instruct/valid/past.jsonl --no-generation
}
copy cut && truncate -s $((bytes - 100)) cut/model.safetensors
bad_model 80 'cut/model.safetensors: .*truncated' cut
copy nought && : > nought/model.safetensors
bad_model 80 'nought/model.safetensors has 0 bytes' nought
copy hostile && poke hostile/model.safetensors '\xff\xff\xff\xff\xff\xff\xff\x7f' 0
bad_model 80 'hostile/model.safetensors: a header of 9223372036854775807 bytes' hostile
copy garbled && poke garbled/model.safetensors x 8
bad_model 80 'garbled/model.safetensors: the header does not start with an object' garbled
rm -rf flipped_bit && cp -r "$checkpoint" flipped_bit && poke flipped_bit/model.safetensors '\x55' $((bytes - 5000))
bad_model 80 'flipped_bit/model.safetensors .*; take another checkpoint' flipped_bit
copy torn && printf '{' > torn/config.json
bad_model 80 'torn/config.json is not a JSON object' torn
copy weightless && rm weightless/model.safetensors
bad_model 66 'weightless holds neither model.safetensors' weightless
bad_model 66 'nothing does not exist' nothing
bad_model 66 'empty_folder holds neither config.json' empty_folder
bad_model 66 'model.toml holds neither config.json' model.toml
copy wide && sed -i 's/"d_ff": 64/"d_ff": 128/' wide/config.json
refuse 80 'has shape \[64, 32\] where \[128, 32\] is expected' "$FLANMOE" generate wide --prompt hello
wrong 80 'has shape \[64, 32\] where \[128, 32\] is expected' --set 'train.start_from="good"' --set model.d_ff=128
wrong 80 'trained with model.activation = "relu", but this run has "gelu"' --set 'train.start_from="good"' --set 'model.activation="gelu"'
wrong 80 'trained with model.d_kv = 8, but this run has 16' --set 'train.start_from="good"' --set model.heads=2 --set model.d_kv=16
ends 0 instruct.toml second "${options[@]}" --set 'train.start_from="good"' --set 'train.stage="finetune"'
grep -q 'starting from the weights of good/checkpoints/step-00000006' second.log || fault 'the second stage does not say where it starts' second.log

# Damage inside a run: the checkpoint before is taken, loudly; none that is valid is no reason to begin anew.
rm -rf run && cp -r good run && truncate -s 100 run/checkpoints/step-00000006/model.safetensors
ends 0 instruct.toml run "${options[@]}"
grep -q 'warning: passing over the checkpoint run/checkpoints/step-00000006: .*has 100 bytes where the manifest says' run.log || fault 'a damaged checkpoint is passed over silently' run.log
grep -q 'resuming at step 3' run.log || fault 'the checkpoint before the damaged one was not taken' run.log
same_run good run
rm -rf run && cp -r good run && poke run/checkpoints/step-00000006/training/optimizer.safetensors '\x55' 9000
ends 0 instruct.toml run "${options[@]}"
grep -q 'resuming at step 3' run.log || fault 'a flipped bit in the optimizer was not seen' run.log
same_run good run
for step in run/checkpoints/step-*; do : > "$step/manifest.json"; done
ends 80 instruct.toml run "${options[@]}"
grep -q 'flanmoe: none of the 2 checkpoints in run/checkpoints is valid' run.log || fault 'a run without a valid checkpoint does not say so' run.log
rm -rf run && cp -r good run && printf 'junk\n' >> run/metrics.jsonl
ends 0 instruct.toml run "${options[@]}"
same_run good run

# Generation and evaluation.
printf 'fine\n\xff\xfe\n' > latin.txt
refuse 66 'nothing' "$FLANMOE" generate good --file nothing
refuse 66 'empty_folder is a directory' "$FLANMOE" generate good --file empty_folder
refuse 65 'latin.txt:2 is not valid UTF-8 at byte 0' "$FLANMOE" generate good --file latin.txt
refuse 65 'there is no prompt' "$FLANMOE" generate good --file empty.jsonl
refuse 64 'exclude each other' "$FLANMOE" generate good --prompt a --file latin.txt
refuse 64 'temperature' "$FLANMOE" generate good --prompt a --temperature -1
expect 0 'warning: 1 prompts were longer than 4 tokens and lost their end' "$FLANMOE" generate good --prompt 'one two three four five six seven' --max-input-tokens 4 --max-new-tokens 2
refuse 66 'nothing does not exist' "$FLANMOE" eval good nothing
refuse 65 'empty.jsonl holds no examples' "$FLANMOE" eval good empty.jsonl
refuse 65 'malformed.jsonl:2 is not valid JSON' "$FLANMOE" eval good malformed.jsonl --no-generation
expect 0 'warning: 3 malformed lines were skipped' "$FLANMOE" eval good malformed.jsonl --no-generation --malformed skip
expect 0 'inputs were longer than 4 tokens and lost their end' "$FLANMOE" eval good toy/instruct/valid/past.jsonl --no-generation --max-input-tokens 4
refuse 73 'model.toml' "$FLANMOE" eval good toy/instruct/valid/past.jsonl --no-generation --out model.toml

# Numbers beyond all counting, and numbers that are none.
wrong 64 'model.d_model must be in \[1, 4194304\], not 9.2' --set model.d_model=9223372036854775807
wrong 64 'multiply to about .* weights' --set model.d_model=4194304 --set model.d_ff=4194304 --set moe.experts=65536
wrong 64 'is 1e\+18 tokens|is .* tokens; check data.batch_rows' --set data.batch_rows=1073741824 --set data.micro_batch_rows=1073741824 --set data.encoder_length=1073741824
wrong 64 'train.threads must be in' --set train.threads=100000
wrong 64 'model.norm_epsilon must be in \(0, 1\]' --set model.norm_epsilon=2
refuse 64 'top-p is 0; give a probability' "$FLANMOE" generate good --prompt a --temperature 1 --top-p 0
refuse 64 'temperature is nan; give a number' "$FLANMOE" generate good --prompt a --temperature nan
refuse 64 'seed: -1 is below 0' "$FLANMOE" data toyworld --out w --seed -1
ends 0 instruct.toml long "${options[@]}" --max-minutes 1000000000

# A vocabulary of the same size whose ids mean other pieces.
"$FLANMOE" tokenizer train toy/corpus --size 400 --out other > other.log 2>&1 || fault 'there is no second vocabulary' other.log
wrong 64 'knows the vocabulary of good/.*spiece.model, and the one given differs' --set 'train.start_from="good"' --set 'data.tokenizer="other"'
refuse 64 'the one given differs' "$FLANMOE" generate good --prompt a --tokenizer other
expect 0 '' "$FLANMOE" generate good --prompt a --max-new-tokens 2 --tokenizer vocabulary

# What is not ours is not written over or blamed; what leads nowhere is not passed over; what cannot be printed is not lost in silence.
mkdir mine && printf '[train]\nsteps = 3\n' > mine/config.toml
refuse 73 'mine holds a config.toml that no run has written' "$FLANMOE" train instruct.toml --run mine
[ "$(cat mine/config.toml)" = $'[train]\nsteps = 3' ] || fault 'a config.toml that somebody wrote is gone' mine/config.toml
refuse 73 'toy/manifest.json is not of token shards' "$FLANMOE" data shard toy/corpus --tokenizer vocabulary --out toy
mkdir links && printf 'a text\n' > links/a.txt && mkdir elsewhere && printf 'another\n' > elsewhere/b.txt && ln -s ../elsewhere links/there
expect 0 '2 documents' "$FLANMOE" data shard links --tokenizer vocabulary --out linked
ln -s nowhere links/gone
refuse 66 'links/gone is a link that leads to no file' "$FLANMOE" data shard links --tokenizer vocabulary --out linked2
refuse 74 'cannot write' bash -c '"$FLANMOE" generate good --prompt a --max-new-tokens 2 2>&1 > /dev/full'
refuse 74 'cannot write' bash -c '"$FLANMOE" config 2>&1 > /dev/full'
refuse 74 'cannot write' bash -c '"$FLANMOE" inspect good 2>&1 > /dev/full'
checkpoint=$(ls -d good/checkpoints/step-* | tail -1)
cp -r "$checkpoint" bare && rm bare/manifest.json
expect 1 'bare has a training state but no manifest.json' "$FLANMOE" inspect --verify bare
