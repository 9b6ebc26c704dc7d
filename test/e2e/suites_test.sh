# Benchmark suites: the program's scores of given answers beside those of a script of its own; a model on all suites, interrupted and gone on with, on several ranks, compared;
# where the real files are, the same on them.
own=$ROOT/test/data/suites checks=$ROOT/test/eval/suites
tasks=anatomy,astronomy,navigate,date_understanding,word_sorting,sports_understanding,gsm8k,svamp,asdiv,strategyqa,aqua,arc_easy,arc_challenge,openbookqa,commonsenseqa,boolq,english,finnish,swahili,de,en,ja
everything=(--suite flan-moe,flan-palm --only "$tasks")

# scored WHAT DATA suites...: mixed answers, scored twice by each measure; right ones give exactly 100.
scored() {
    local what=$1 data=$2 first measure
    shift 2
    "$FLANMOE" eval "$@" --data "$data" --prompts prompts.jsonl 2> prompts.log || fault "$what: no prompts" prompts.log
    for first in 0 ${more-}; do
        python3 "$checks/score.py" --mixed prompts.jsonl "$first" > mixed.jsonl
        for measure in generation ${measures-}; do
            "$FLANMOE" eval "$@" --data "$data" --answers mixed.jsonl --score $measure --out mixed > score.log 2>&1 || fault "$what: not scored" score.log
            python3 "$checks/score.py" prompts.jsonl mixed.jsonl $measure > expected.json
            python3 "$checks/compare_scores.py" mixed/summary.json expected.json > compare.log || fault "$what, from $first, $measure: other scores than the script's" compare.log
        done
    done
    python3 "$checks/score.py" --perfect prompts.jsonl > perfect.jsonl
    "$FLANMOE" eval "$@" --data "$data" --answers perfect.jsonl --json > perfect.json 2> /dev/null
    python3 -c 'import json; s = json.load(open("perfect.json")); assert s["suites"] and all(x["score"]["value"] == 100 for x in s["tasks"] + s["suites"] + s["averages"]) and all(x["normalized"]["value"] == 100 for x in s["suites"])' ||
        fault "$what: right answers do not give 100"
}
chance() {  # chance suites...: normalised scores of guesses are within 3 of 0
    python3 "$checks/score.py" --chance prompts.jsonl > guesses.jsonl
    "$FLANMOE" eval "$@" --answers guesses.jsonl --json > guesses.json 2> /dev/null
    python3 -c 'import json; assert all(abs(s["normalized"]["value"]) < 3 for s in json.load(open("guesses.json"))["suites"])' || fault "$*: guesses do not give about 0"
}
# every_guess suites...: questions have 2 to 5 options, so that 60 rounds of guessing in turn take each of them equally often: their mean is 0 for every suite and average.
every_guess() {
    local round
    mkdir -p rounds
    for round in $(seq 0 59); do
        python3 "$checks/score.py" --chance prompts.jsonl "$round" > guesses.jsonl
        "$FLANMOE" eval "$@" --answers guesses.jsonl --json > "rounds/$round.json" 2> guesses.log || fault 'guesses are not scored' guesses.log
    done
    python3 - <<'END' > rounds.log || fault 'guessing does not give 0 normalised' rounds.log
import glob, json
sums, rounds = {}, [json.load(open(path)) for path in glob.glob("rounds/*.json")]
for r in rounds:
    for s in r["suites"]: sums[s["suite"] + "/" + s["mode"]] = sums.get(s["suite"] + "/" + s["mode"], 0) + s["normalized"]["value"]
    for a in r["averages"]: sums[a["name"]] = sums.get(a["name"], 0) + a["score"]["value"]
print(sums)
assert len(rounds) == 60 and len(sums) == 10 and all(abs(s) < 1e-9 for s in sums.values())
END
}

if command -v python3 > /dev/null; then
    more="41 82 123 164 205" measures="likelihood per_token per_byte" scored 'our own files' "$own" "${everything[@]}"
    [ "$(cat compare.log)" = "589 figures compared" ] || fault 'not every figure was compared' compare.log
    every_guess "${everything[@]}" --data "$own"
    data=${FLANMOE_DATA:-$ROOT/../shared/data}
    if [ -d "$data" ]; then
        scored 'real MMLU' "$data" --suite mmlu/direct
        chance --suite mmlu/direct --data "$data"
        scored 'real BIG-Bench-Hard' "$data" --suite bbh
        chance --suite bbh --data "$data"
        scored 'real mathematics and StrategyQA' "$data" --suite reasoning
        chance --suite reasoning --data "$data"
        scored 'real CommonsenseQA and BoolQ' "$data" --suite qa --only commonsenseqa,boolq
        chance --suite qa --only commonsenseqa,boolq --data "$data"
    fi
fi

# A task file of ours is a suite, with exemplars from the split that it names.
"$FLANMOE" eval --suite "$ROOT/configs/task/gsm8k.toml" --shots 2 --data "$own" --prompts task.jsonl > task.log 2>&1 || fault 'a task file as a suite' task.log
[ "$(grep -c '"suite":"task","task":"cot/gsm8k","mode":"cot"' task.jsonl)" = 5 ] || fault 'the task file asks five questions'
[ "$(head -1 task.jsonl | grep -o 'Let.s think step by step' | wc -l)" = 3 ] || fault 'two exemplars and the question'

# A model on everything.
tiny_world
ends 0 instruct.toml tuned --set train.steps=8 --set train.save_every=0
model=(tuned "${everything[@]}" --data "$own" --max-input-tokens 3000 --max-new-tokens 8 --batch 8)
"$FLANMOE" eval "${model[@]}" --out whole > whole.log 2>&1 || fault 'suites on a model' whole.log
grep -qE '^flan-moe .*mean of 4 suites' whole.log && grep -qE '^flan-palm .*mean of 6 suites' whole.log || fault 'the averages are not in the table' whole.log
[ "$(wc -l < whole/samples.jsonl)" = 90 ] && [ ! -e whole/samples.partial.jsonl ] || fault '90 samples'

# Killed behind its first answers, it goes on there; under other options it refuses to.
for try in 1 2 3 4 5; do
    rm -rf cut
    "$FLANMOE" eval "${model[@]}" --out cut > cut.log 2>&1 &
    job=$!
    until [ "$(wc -l 2> /dev/null < cut/samples.partial.jsonl || echo 0)" -gt 1 ]; do kill -0 $job 2> /dev/null || break; done
    kill -KILL $job 2> /dev/null
    wait $job 2> /dev/null
    [ -e cut/samples.partial.jsonl ] && break
done
[ -e cut/samples.partial.jsonl ] || fault 'never interrupted' cut.log
printf '{"id":"torn' >> cut/samples.partial.jsonl
refuse 64 'holds answers of another model, other suites or options' "$FLANMOE" eval "${model[@]}" --beams 2 --out cut
cp -r cut changed
sed -i -E '2s/"output":"([^"\\]|\\.)*"/"output":"taken over"/' changed/samples.partial.jsonl
"$FLANMOE" eval "${model[@]}" --out changed > changed.log 2>&1 || fault 'going on from a changed answer' changed.log
[ "$(grep -c '"output":"taken over"' changed/samples.jsonl)" = 1 ] || fault 'an answer was computed again' changed.log
"$FLANMOE" eval "${model[@]}" --out cut > cut.log 2>&1 || fault 'going on' cut.log
grep -qE '[0-9]+ were answered before' cut.log || fault 'nothing was taken over' cut.log
cmp -s whole/samples.jsonl cut/samples.jsonl && cmp -s whole/summary.json cut/summary.json || fault 'interrupted and gone on with: other results'

# Its own samples are answers, too: the same scores again, without the model.
"$FLANMOE" eval "${everything[@]}" --data "$own" --answers whole/samples.jsonl --out again > again.log 2>&1 || fault 'scoring samples again' again.log
diff <(grep -v '"model"' whole/summary.json) <(grep -v '"model"' again/summary.json) > again.diff || fault 'scored again, other scores' again.diff
expect 0 'mmlu +direct +all +9 .* 0\.0 \[0\.0, 0\.0\]' "$FLANMOE" eval --compare whole again

# Two ranks give what one gives.
if command -v mpirun > /dev/null; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    timeout 120 mpirun -q --oversubscribe -n 2 "$FLANMOE" eval "${model[@]}" --set parallel.expert=2 --out ranks > ranks.log 2>&1 < /dev/null || fault 'suites on two ranks' ranks.log
    diff <(grep -oE '"(id|output|extracted)":"[^"]*"' whole/samples.jsonl) <(grep -oE '"(id|output|extracted)":"[^"]*"' ranks/samples.jsonl) > ranks.diff || fault 'two ranks answer otherwise' ranks.diff
fi

# Options that lost their end are counted.
small=(tuned --data "$own" --max-input-tokens 3000 --max-new-tokens 8)
expect 0 'warning: [0-9]+ questions have options that were too long and lost their end \(--max-target-tokens\)' \
    "$FLANMOE" eval "${small[@]}" --suite qa --only arc_easy --max-target-tokens 1 --score likelihood --no-generation --out short
[ "$(grep -c '"options_cut":true' short/samples.jsonl)" = "$(wc -l < short/samples.jsonl)" ] || fault 'options that were cut are not marked'
# Answers to other prompts are compared only if that is wanted.
"$FLANMOE" eval "${small[@]}" --suite mmlu/direct --only anatomy --shots 0 --out zero > zero.log 2>&1 || fault 'no shots' zero.log
refuse 64 "has another prompt in whole than in zero; .*--other-prompts" "$FLANMOE" eval --compare whole zero
expect 0 'warning: [0-9]+ questions have other prompts' "$FLANMOE" eval --compare whole zero --other-prompts

refuse 64 'needs a model, or --prompts, or --answers' "$FLANMOE" eval --suite mmlu
refuse 64 'there is no suite .mmul. \(did you mean mmlu\?\)' "$FLANMOE" eval --suite mmul --prompts p
refuse 64 'takes task files or suites, not both' "$FLANMOE" eval tuned toy/instruct/valid --suite mmlu
refuse 66 'arc-easy|ARC-Easy-Test.jsonl is not there; get it from' "$FLANMOE" eval --suite qa --data nowhere --prompts p
refuse 65 'has [0-9]+ tokens without any exemplar, 9 fit' "$FLANMOE" eval tuned --suite mmlu --only anatomy --data "$own" --max-input-tokens 10
refuse 64 'two folders|At least 2|2 required' "$FLANMOE" eval --compare whole
refuse 64 '^flanmoe: --only goes with --suite, which is missing' "$FLANMOE" eval tuned toy/instruct/valid --only anatomy
refuse 64 '^flanmoe: --split goes with --suite, which is missing' "$FLANMOE" eval tuned toy/instruct/valid --split test
refuse 64 '^flanmoe: --options-key is for task files in JSON lines' "$FLANMOE" eval tuned --suite mmlu --options-key x
refuse 64 '^flanmoe: eval --compare takes folders of results; --score means nothing there' "$FLANMOE" eval --compare whole again --score likelihood
refuse 64 '^flanmoe: --other-prompts goes with --compare' "$FLANMOE" eval --suite mmlu --other-prompts --prompts p
refuse 64 '^flanmoe: --no-generation leaves out what --score generation counts' "$FLANMOE" eval tuned --suite mmlu --no-generation
refuse 64 'suite bbh has one set of questions, without splits' "$FLANMOE" eval --suite bbh --only navigate --data "$own" --split val --prompts p
refuse 64 'suite qa takes no exemplars from files' "$FLANMOE" eval --suite qa --exemplars qa=whole --data "$own" --prompts p
refuse 64 'leave out --malformed' "$FLANMOE" eval --suite "$ROOT/configs/task/gsm8k.toml" --malformed skip --data "$own" --prompts p
refuse 64 'needs the likelihood of options' "$FLANMOE" eval tuned --suite mmlu --score per_byte --no-options
refuse 64 'goes through task files, not suites' "$FLANMOE" eval tuned --suite mmlu --routing-trace
refuse 64 'two tasks are called task/cot/gsm8k' "$FLANMOE" eval --suite "$ROOT/configs/task/gsm8k.toml,$ROOT/configs/task/gsm8k.toml" --data "$own" --prompts p
