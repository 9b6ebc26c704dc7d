# The routing trace of a trained run by the command line: stages, capacities, drift, dump, shards; the choice of tasks; broadcast dropout; inspect of a run folder.
tiny_world
few=(--set train.steps=12 --set train.save_every=0 --set eval.every=0)
ends 0 span.toml pretrain "${few[@]}"
ends 0 instruct.toml instruct "${few[@]}" --set data.tasks=10 --set train.start_from='"pretrain"' --set model.dropout_broadcast=true
grep -q 'data.train: 10 tasks (data.tasks_seed = 0): ' instruct.log || fault 'the chosen tasks are not named' instruct.log
[ "$(wc -l < instruct/tasks.txt)" = 10 ] || fault 'tasks.txt does not hold ten names' instruct/tasks.txt
ends 0 instruct.toml more --set train.steps=6 --set data.tasks=20
[ "$(comm -12 <(sort instruct/tasks.txt) <(sort more/tasks.txt) | wc -l)" = 10 ] || fault 'ten tasks are not among twenty'
ends 64 instruct.toml other --set data.tasks=70
grep -q 'data.tasks is 70, but data.train names 69 task files' other.log || fault 'too many tasks are not refused' other.log
ends 64 span.toml other --set data.tasks=7

trace=("$FLANMOE" eval instruct toy/instruct/valid --routing-trace)
expect 0 'encoder 1 ' "${trace[@]}"
expect 0 'capacity of evaluation \(one example a row\); encoder: tokens ask for 1, max\(4, round\(2 x tokens / 4\)\)' "${trace[@]}"
expect 0 'capacity of training \(examples packed into full rows\); encoder: tokens ask for 1, max\(4, round\(1.25 x tokens / 4\)\)' "${trace[@]}" --routing-capacity training
expect 0 'no token is dropped' "${trace[@]}" --routing-capacity none
expect 0 'other experts %' "${trace[@]}" --routing-drift pretrain --out out --routing-dump
for file in routing.json routing.txt routing.jsonl; do [ -s out/$file ] || fault "out/$file is missing"; done
[ "$(wc -l < out/routing.jsonl)" = $((2 * $(cat toy/instruct/valid/*.jsonl | wc -l))) ] || fault 'the dump has not two lines an example'
"${trace[@]}" --json > again.json 2> /dev/null
"${trace[@]}" --json --batch 3 > cut.json 2> /dev/null
cmp -s <(grep -v 'router_entropy\|confidence\|balance' again.json) <(grep -v 'router_entropy\|confidence\|balance' cut.json) || fault 'the size of batches changes the trace'
expect 0 'decoder 1.3' "$FLANMOE" eval pretrain shards --routing-trace --limit 20
ends 0 span.toml dense --set train.steps=6 --set moe.experts=0
refuse 64 'model is dense' "$FLANMOE" eval dense toy/instruct/valid --routing-trace
refuse 64 '--routing-dump writes into the folder of --out' "${trace[@]}" --routing-dump
refuse 64 'requires --routing-trace' "$FLANMOE" eval instruct toy/instruct/valid --routing-drift pretrain

# A run folder is its best or else its newest checkpoint, for inspect as for eval.
expect 0 'instruct/checkpoints/step-00000012' "$FLANMOE" inspect instruct
expect 0 'ok      manifest' "$FLANMOE" inspect instruct --verify
expect 1 'differ' "$FLANMOE" inspect instruct --diff pretrain
expect 0 'encoder.1 ' "$FLANMOE" inspect instruct --routing
expect 0 '"validation"' "$FLANMOE" inspect instruct --routing --json
refuse 66 'holds no metrics.jsonl' "$FLANMOE" inspect toy --routing
refuse 66 'the model is dense' "$FLANMOE" inspect dense --routing
