# `flanmoe data mixture` and training on one: a small mixture of made-up tasks; the published proportions where the real files are.
data=${FLANMOE_DATA:-$ROOT/../shared/data} files=$ROOT/test/data/readers/files
for i in $(seq 60); do printf '{"question": "what is %d and %d", "answer": "it is #### %d"}\n' "$i" $((i * 3)) $((i * 4)); done > sums.jsonl
for i in $(seq 30); do printf '{"question": "what follows %d", "answer": "next #### %d"}\n' "$i" $((i + 1)); done > next.jsonl
for name in sums next; do
    printf 'name = "%s"\nreader = "gsm8k"\nanswer = "{{ answer }}"\n[files]\ntrain = ["%s.jsonl"]\nvalidation = ["%s.jsonl"]\n[[template]]\ninputs = "{{ question }}?"\ntargets = "{{ rationale }} {{ answer }}"\n' $name $name $name > $name.toml
done
printf 'few_shot = 0.5\nshots = [1, 2]\n[[part]]\nname = "one"\nproportion = 3\ntasks = "sums.toml"\n[[part]]\nname = "two"\nproportion = 1\ntasks = "next.toml"\n' > mixture.toml
printf 'split = "validation"\ntasks = ["sums.toml", "next.toml"]\n' > validation.toml
vocabulary=$ROOT/test/oracle/tokenizer

expect 0 '75.000000' "$FLANMOE" data mixture mixture.toml --tokenizer "$vocabulary" --cache cache --steps 10 --batch-rows 4
expect 0 '2 of 2 tasks from the cache' "$FLANMOE" data mixture mixture.toml --tokenizer "$vocabulary" --cache cache --count 2
expect 0 '1 of 1 tasks' "$FLANMOE" data mixture mixture.toml --tokenizer "$vocabulary" --cache cache --tasks 1
refuse 64 'has 2 tasks' "$FLANMOE" data mixture mixture.toml --tokenizer "$vocabulary" --tasks 3
printf 'tasks = "next.toml"\n[held_out]\ntasks = "sums.toml"\nsplits = "validation"\npolicy = "refuse"\n' > clean.toml
expect 0 '1 held-out tasks do not occur' "$FLANMOE" data mixture clean.toml --tokenizer "$vocabulary"
sed 's/next.toml/sums.toml/' clean.toml > planted.toml
refuse 65 '60 records of the mixture hold items that are held out, as sums.jsonl:1 \(task sums\) does sums.jsonl:1 of sums' "$FLANMOE" data mixture planted.toml --tokenizer "$vocabulary"
refuse 66 'sums.jsonl does not exist' "$FLANMOE" data mixture mixture.toml --tokenizer "$vocabulary" --data nowhere

# What a search has found stands in the table of an evaluation, by task.
sed 's/refuse/warn/' planted.toml > warned.toml
"$FLANMOE" eval --suite sums.toml --split validation --data . --prompts prompts.jsonl 2> /dev/null
grep -o '"id":"[^"]*"' prompts.jsonl | sed 's/.*/{&,"output":"7"}/' > answers.jsonl
for name in clean warned; do "$FLANMOE" data mixture $name.toml --tokenizer "$vocabulary" --cache cache --held-out-report $name.json > /dev/null 2>&1; done
[ "$(ls cache/held-out-*.json | wc -l)" = 2 ] || fault 'searches for held-out items are not kept'
expect 0 'sums +60 .* 60 \+ 0$' "$FLANMOE" eval --suite sums.toml --split validation --data . --answers answers.jsonl --per-task --held-out warned.json
expect 0 'sums +60 .* 0 \+ 0$' "$FLANMOE" eval --suite sums.toml --split validation --data . --answers answers.jsonl --per-task --held-out clean.json
expect 0 '"held_out": *\{' "$FLANMOE" eval --suite sums.toml --split validation --data . --answers answers.jsonl --json --held-out clean.json
refuse 65 'answers.jsonl is no report of a search for held-out items' "$FLANMOE" eval --suite sums.toml --split validation --data . --answers answers.jsonl --held-out answers.jsonl
refuse 65 '60 records of the mixture hold items' "$FLANMOE" data mixture planted.toml --tokenizer "$vocabulary" --held-out-report planted.json
cmp -s planted.json warned.json || fault 'what is refused is not reported'
refuse 64 'mixture.toml holds nothing out' "$FLANMOE" data mixture mixture.toml --tokenizer "$vocabulary" --held-out-report none.json

# Training on it: the same losses after a stop, from the cache and without one; tasks.txt names the tasks; the mixture is part of what a run is.
tiny_world
sed 's|^\[data\]|[data]\nobjective = "instruct"\ndecoder_length = 32\nmixture = "mixture.toml"\nvalidation_mixture = "validation.toml"\ncache = "cache"|' model.toml > mixed.toml
train mixed.toml whole --set train.steps=20
train mixed.toml parts --set train.steps=20 --max-steps 10
train mixed.toml parts --set train.steps=20 --set data.cache= || fault 'training on a mixture does not go on' parts.log
losses() { grep -o '"step":[0-9]*\|"loss":[0-9.e+-]*' "$1/metrics.jsonl"; }
[ -s whole/metrics.jsonl ] && [ "$(losses whole)" = "$(losses parts)" ] || fault 'a stop changes the losses of training on a mixture' parts.log
expect 0 '^next$' cat whole/tasks.txt
refuse 64 'data.mixture and data.train are both set' "$FLANMOE" train mixed.toml --run other --set 'data.train=["sums.jsonl"]'
refuse 64 'a mixture of tasks is for data.objective' "$FLANMOE" train mixed.toml --run other --set data.objective=prefix_lm

# A run tells what of its mixture is held out, and keeps the report, also of what it refuses.
for name in clean warned planted; do train mixed.toml "run-$name" --set data.mixture=$name.toml --set train.steps=6; done
grep -q '^flanmoe: 60 records of the mixture hold items that are held out' run-planted.log || fault 'a run trains on what is refused' run-planted.log
[ -s clean.json ] && cmp -s run-clean/held-out.json clean.json && cmp -s run-warned/held-out.json warned.json && cmp -s run-planted/held-out.json warned.json || fault 'reports in run directories' run-clean.log
[ ! -e whole/held-out.json ] || fault 'a report where nothing is held out'

# A run tells once what was not read of its tasks, from the files and from the cache.
for i in $(seq 8); do printf '{"id": %d, "q": "what is %d", "a": "%d"}\n' "$i" "$i" "$i"; done | sed '3s/.*/{"id": 3,/' > odd.jsonl
echo '[1, 2, 3, 4, 5, 77, 99]' > ids.json
printf 'name = "odd"\nreader = "jsonl"\nmalformed = "skip"\n[files]\ntrain = ["odd.jsonl"]\nvalidation = ["odd.jsonl"]\n[only]\ntrain = "ids.json"\n[[template]]\ninputs = "{{ q }}"\ntargets = "{{ a }}"\n' > odd.toml
for cache in cache cache ''; do
    rm -rf odd odd.log
    train mixed.toml odd --set data.mixture=odd.toml --set data.validation_mixture= --set data.validation_split=validation --set train.steps=6 --set data.cache=$cache
    [ "$(grep -c 'data.train: task odd: 1 malformed, skipped (malformed = "skip"; the first: odd.jsonl:3 .*), 3 not chosen (by the task.s only, except and portion), 3 ids of its lists unknown (.*ids.json' odd.log)" = 1 ] &&
        [ "$(grep 'data.validation: task odd: 1 malformed, skipped' odd.log | grep -vc 'not chosen')" = 1 ] || fault 'what was not read' odd.log
done
train mixed.toml asked --set data.mixture=next.toml --set data.validation_mixture= --set data.validation_split=validation --set train.steps=6 --set eval.samples=2 --set eval.metric=exact_match
! grep -q 'data.train: task' asked.log || fault 'losses where there are none' asked.log

if [ -d "$data" ]; then
    expect 0 '^muffin +6 +7,850 +52.000000$' "$FLANMOE" data mixture "$ROOT/configs/mixture/flan-a.toml" --data "$data" --tokenizer "$vocabulary" --tasks 0 --cache cache
    # Without looking for held-out items again. Proportions B sum to 99.9: 1.8 / 99.9
    for name in flan-b flan-collection; do sed "/^\[held_out\]/,/^policy/d; s|\.\./task|$ROOT/configs/task|g" "$ROOT/configs/mixture/$name.toml" > $name.toml; done
    expect 0 '^cot +8 +36,443 +1.801802$' "$FLANMOE" data mixture flan-b.toml --data "$data" --tokenizer "$vocabulary" --cache cache
    expect 0 '^140 of 140 tasks from the cache' "$FLANMOE" data mixture flan-collection.toml --data "$data" --tokenizer "$vocabulary" --cache cache
fi
