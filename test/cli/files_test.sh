# Input files that are missing, of the wrong kind, empty or damaged: one sentence with the file and what to do, exit code by kind.
mkdir empty_folder
: > empty.txt
printf 'plain text\nabc\xff\xfe def\n' > latin.txt
printf '{"inputs":"a","targets":"b"}\n{"inputs": oops\n' > malformed.jsonl
printf 'no header at all\n' > garbage.safetensors

refuse 66 'missing.txt does not exist' "$FLANMOE" tokenizer train missing.txt --out v
refuse 65 'empty_folder holds no files' "$FLANMOE" tokenizer train empty_folder --out v
refuse 65 'no text to learn a vocabulary from' "$FLANMOE" tokenizer train empty.txt --out v
refuse 65 'latin.txt is not valid UTF-8 at byte 14.*--encoding latin-1' "$FLANMOE" tokenizer train latin.txt --out v --size 100
refuse 66 'no vocabulary at missing' "$FLANMOE" tokenizer info missing
refuse 66 'no vocabulary at missing' "$FLANMOE" data shard latin.txt --tokenizer missing --out shards
expect 65 'flanmoe: malformed.jsonl:2' "$FLANMOE" data show malformed.jsonl
expect 0 '1 examples, 1 malformed' "$FLANMOE" data show malformed.jsonl --malformed skip
refuse 66 'missing does not exist' "$FLANMOE" inspect missing
refuse 66 'empty_folder holds neither' "$FLANMOE" inspect empty_folder
refuse 80 'garbage.safetensors: a header of [0-9]+ bytes' "$FLANMOE" inspect garbage.safetensors
refuse 80 'empty.txt has 0 bytes' "$FLANMOE" inspect empty.txt
expect 66 'FAILED  missing' "$FLANMOE" parity missing
expect 65 'empty_folder/case.json' "$FLANMOE" parity empty_folder
refuse 66 'missing.toml' "$FLANMOE" bench missing.toml

# From text to shards: the toy world is the same bytes each time, and what is made from it opens.
"$FLANMOE" data toyworld --out one --seed 3 --train 20 --validation 2 --test 2 --finetune 10 --documents 100 > one.log 2>&1
"$FLANMOE" data toyworld --out two --seed 3 --train 20 --validation 2 --test 2 --finetune 10 --documents 100 > two.log 2>&1
"$FLANMOE" data toyworld --out other --seed 4 --train 20 --validation 2 --test 2 --finetune 10 --documents 100 > other.log 2>&1
expect 0 '^$' diff -r one two
expect 1 'differ' diff -rq one other
expect 0 '' "$FLANMOE" tokenizer train one/corpus one/vocabulary.txt --size 400 --out vocabulary
expect 0 '' "$FLANMOE" data shard one/corpus --tokenizer vocabulary --out shards
expect 0 'documents' "$FLANMOE" data show shards --verify
expect 0 '^[0-9]+( [0-9]+)+$' "$FLANMOE" tokenizer encode vocabulary 'one small world'

# A flipped bit in a shard is found.
shard=$(find shards -type f -size +1k | head -1)
printf '\x5a' | dd of="$shard" bs=1 seek=900 conv=notrunc status=none
expect '65|79' 'flanmoe: ' "$FLANMOE" data show shards --verify
