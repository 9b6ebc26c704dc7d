# Finetuning recipes: every one runs from small files of our own in the published formats, chooses its best checkpoint and tests it; metrics reach the training and `eval`;
# where the real files are, the same on them.
data=${FLANMOE_DATA:-$ROOT/../shared/data}
tiny_world
ln -s "$ROOT/configs" configs
sed '/^\[data\]/,$d' model.toml > small.toml
quick=(--set data.tokenizer=vocabulary --set data.batch_rows=4 --set data.micro_batch_rows=2 --set train.dtype=f32 --set train.steps=4 --set train.save_every=0 --set train.tensorboard=false
    --set eval.every=2 --set eval.samples=16 --set data.validation_batches=2)

# finetune RECIPE DATA options...: into runs/RECIPE
finetune() {
    local recipe=$1 folder=$2
    shift 2
    rm -rf "runs/$recipe"
    mkdir -p runs
    "$FLANMOE" train small.toml configs/recipe/finetune.toml "configs/recipe/finetune/$recipe.toml" --run "runs/$recipe" "${quick[@]}" --set data.folder="$folder" "$@" > "runs/$recipe.log" 2>&1 < /dev/null ||
        fault "finetuning $recipe on $folder: exit code $?" "runs/$recipe.log"
}
# has RECIPE NAME...: its validations have these values, and best.json names a metric
has() {
    local recipe=$1 name
    shift
    for name; do grep '"kind":"validation"' "runs/$recipe/metrics.jsonl" | grep -q "\"$name\":" || fault "$recipe: no $name in a validation" "runs/$recipe.log"; done
    grep -q '"metric"' "runs/$recipe/checkpoints/best.json" || fault "$recipe: no best checkpoint"
}

# Files of our own, as their authors lay them out.
mkdir -p own/{condaqa,cxc,sick,pubmedqa,searchqa,mrqa/train,mrqa/dev} own/superglue/{BoolQ,CB,COPA,MultiRC,ReCoRD,RTE,WiC,WSC}
for split in train dev test; do
    for passage in 1 2 3; do
        for edit in 0 1 2 3; do
            answer=$([ $((edit % 2)) = 0 ] && echo YES || echo NO)
            printf '{"QuestionID": "q1", "original cue": "not", "PassageEditID": %d, "SampleID": 1, "label": "%s", "sentence2": "Did it rain?", "PassageID": %d, "sentence1": "It did not rain on day %d."}\n' $edit $answer $passage $edit
        done
    done > own/condaqa/condaqa_$split.json
done
{ echo 'caption1,caption2,agg_score,sampling_method'; for i in $(seq 40); do echo "COCO_val2014:sentid:$i,COCO_val2014:sentid:$((i + 1)),$((i % 5)).3,c2c_isim"; done; } | tee own/cxc/sts_val.csv > own/cxc/sts_test.csv
{ printf '{"info": {}, "annotations": ['; for i in $(seq 41); do printf '%s{"image_id": 1, "id": %d, "caption": "A bird, number %d \\n"}' "$([ "$i" = 1 ] || echo ,)" "$i" "$i"; done; echo ']}'; } > own/cxc/captions_val2014.json
for split in train trial test_annotated; do
    { printf 'pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n'; for i in 1 2 3 4 5 6; do printf '%d\tA bird sings\tA bird is singing, %d\t%d.9\tNEUTRAL\n' $i $i $((i % 5)); done | sed 's/\t0\.9/\t4.7/'; } > own/sick/SICK_$split.txt
done
{ printf '{'; for i in $(seq 60); do printf '%s"%d": {"QUESTION": "Does %d help?", "CONTEXTS": ["We tried."], "final_decision": "%s", "LONG_ANSWER": "So."}' "$([ "$i" = 1 ] || echo ,)" "$i" "$i" "$([ $((i % 2)) = 0 ] && echo yes || echo no)"; done; echo '}'; } > own/pubmedqa/ori_pqal.json
echo '{"1": "no", "2": "yes"}' > own/pubmedqa/test_ground_truth.json
for split in train val test; do for i in 1 2 3 4; do echo "<s> Owls hoot $i . </s> <s> Birds . </s> ||| bird number $i ||| owl"; done > own/searchqa/$split.txt; done
for split in train dev; do { echo '{"header": {"dataset": "SearchQA"}}'; for i in $(seq 80); do echo "{\"context\": \"Owls hoot.\", \"qas\": [{\"qid\": \"$i\", \"question\": \"bird $i\", \"answers\": [\"owl\"]}]}"; done; } | gzip > own/mrqa/$split/SearchQA.jsonl.gz; done
for split in train val; do
    cd own/superglue || exit 1
    echo '{"question": "is it wet", "passage": "It rains.", "idx": 0, "label": true}' > BoolQ/$split.jsonl
    echo '{"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment", "idx": 0}' > CB/$split.jsonl
    echo '{"premise": "It rained.", "choice1": "It was wet.", "choice2": "It was dry.", "question": "effect", "label": 0, "idx": 0}' > COPA/$split.jsonl
    echo '{"idx": 0, "version": 1.1, "passage": {"text": "Ann ran. Bob sat.", "questions": [{"question": "Who ran?", "answers": [{"text": "Ann", "idx": 0, "label": 1}, {"text": "Bob", "idx": 1, "label": 0}], "idx": 0}]}}' > MultiRC/$split.jsonl
    echo '{"source": "x", "passage": {"text": "Zoë met Bob.", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}]}, "idx": 0, "qas": [{"idx": 0, "query": "@placeholder met Zoë.", "answers": [{"start": 8, "end": 10, "text": "Bob"}]}]}' > ReCoRD/$split.jsonl
    echo '{"premise": "It rains.", "hypothesis": "It is dry.", "label": "not_entailment", "idx": 0}' > RTE/$split.jsonl
    echo '{"word": "bank", "sentence1": "A bank lends.", "sentence2": "A river bank.", "idx": 0, "label": false, "start1": 2, "start2": 8, "end1": 6, "end2": 12, "version": 1.1}' > WiC/$split.jsonl
    echo '{"text": "Ann saw Bob as he sat.", "target": {"span2_index": 4, "span1_index": 2, "span1_text": "Bob", "span2_text": "he"}, "idx": 0, "label": true}' > WSC/$split.jsonl
    cd ../..
done

for recipe in configs/recipe/finetune/*.toml; do
    name=$(basename "$recipe" .toml)
    case $name in condaqa | cxc | sick | pubmedqa | searchqa) split=test ;; *) split=validation ;; esac
    finetune "$name" own --set eval.test_split=$split
    metric=$(sed -n 's/^metric = "\(.*\)"/\1/p' "$recipe")
    has "$name" "$metric"
    grep -q "\"$metric\"" "runs/$name/test.json" || fault "$name: its test has no $metric" "runs/$name.log"
done
has condaqa consistency
has cxc spearman unparsed
has multirc f1a consistency macro_f1 exact_match
expect 0 'Caption 1: A bird, number 3\\nCaption 2: A bird, number 4\\nHow similar are they, from 0 to 5\?","targets":\["3.2"\]' "$FLANMOE" data tasks configs/task/pairs.toml --data own --split test --jsonl --count 9
expect 0 '"inputs":"What stands for @placeholder\?\\n@placeholder met Zoë.\\n\\nZoë met Bob.\\n\\nOPTIONS:\\n- Zoë\\n- Bob","targets":\["Bob"\]' "$FLANMOE" data tasks configs/task/super_glue.toml --data own --split train --jsonl --count 1
finetune searchqa own --set 'data.only=["searchqa/mrqa"]' --set eval.test_split=test
finetune sick own --set 'data.only=["sick/entailment"]' --set eval.metric=accuracy
has sick accuracy
finetune condaqa own --set eval.metric=consistency --set 'data.only=["condaqa/dev"]'

# The best checkpoint is what is tested; a finished run that is started again only tests; early stopping stays what it was.
finetune condaqa own --set train.steps=8 --set eval.every=2 --set eval.patience=2 --set optimizer.learning_rate=1e-9 --set eval.test_split=test
grep -q 'has not improved for 2 validations; stopping early' runs/condaqa.log || fault 'no early stop' runs/condaqa.log
grep -q '"step": 2,' runs/condaqa/test.json || fault 'not the best checkpoint was tested' runs/condaqa.log
rm runs/condaqa/test.json
before=$(grep -c . runs/condaqa/metrics.jsonl)
"$FLANMOE" train runs/condaqa/config.toml --run runs/condaqa > again.log 2>&1 < /dev/null || fault 'a finished run is started again' again.log
[ "$(grep -c . runs/condaqa/metrics.jsonl)" = "$before" ] && [ -e runs/condaqa/test.json ] || fault 'a run that stopped early goes on' again.log

# The same metrics in eval, on lines with groups and numbers.
printf '{"inputs": "one", "targets": "1.0", "group": "a"}\n{"inputs": "two", "targets": "2.0", "group": "a"}\n' > numbers.jsonl
expect 0 'Pearson +Spearman +consistent' "$FLANMOE" eval runs/condaqa numbers.jsonl --out results
"$FLANMOE" data tasks configs/task/condaqa.toml --data own --split train --jsonl --count 2 > lines.jsonl
grep -q '"task":"condaqa".*"group":"1/q1"' lines.jsonl || fault 'groups in lines' lines.jsonl
grep -q '"consistency": 0' results/summary.json && grep -q '"unparsed": [0-2],' results/summary.json && grep -q '"groups": 1,' results/summary.json || fault 'metrics of eval' results/summary.json

# The task files as suites: right answers correlate and are consistent.
mkdir -p many/superglue/MultiRC
for i in 1 2 3 4 5; do sed "s/\"idx\": 0, \"version\"/\"idx\": $i, \"version\"/" own/superglue/MultiRC/val.jsonl; done | tee many/superglue/MultiRC/train.jsonl > many/superglue/MultiRC/val.jsonl
suite=(--suite configs/task/pairs.toml,configs/task/condaqa.toml --only sick/relatedness,condaqa --data own)
if command -v python3 > /dev/null; then
    "$FLANMOE" eval "${suite[@]}" --prompts prompts.jsonl > prompts.log 2>&1 || fault 'prompts of task files' prompts.log
    python3 -c 'import json
for line in open("prompts.jsonl"): p = json.loads(line); print(json.dumps({"id": p["id"], "output": p["answers"][0]}))' > answers.jsonl
    expect 0 'sick/relatedness: pearson +6 +100.0 \[100.0, 100.0\]' "$FLANMOE" eval "${suite[@]}" --answers answers.jsonl
    expect 0 'condaqa: consistency +3 +100.0' "$FLANMOE" eval "${suite[@]}" --answers answers.jsonl
    # MultiRC's F1a and exact match of questions, of answers that are right, wrong and neither, computed once more.
    for folder in many "$data"; do
        [ -e "$folder/superglue/MultiRC/val.jsonl" ] || { echo "        skipped: $folder has no MultiRC"; continue; }
        suite=(--suite configs/task/super_glue.toml --only super_glue/multirc --split validation --data "$folder")
        "$FLANMOE" eval "${suite[@]}" --prompts prompts.jsonl > prompts.log 2>&1 || fault 'prompts of MultiRC' prompts.log
        python3 - "$folder" << 'END' > f1a.txt
import json, sys
truth = [[a["label"] for a in q["answers"]] for line in open(sys.argv[1] + "/superglue/MultiRC/val.jsonl") for q in json.loads(line)["passage"]["questions"]]
candidates = [(q, label) for q, labels in enumerate(truth) for label in labels]
given = [["true", "false", "TRUE.", "perhaps"][i * i % 7 % 4] for i in range(len(candidates))]
with open("answers.jsonl", "w") as out:
    for line, answer in zip(open("prompts.jsonl"), given): print(json.dumps({"id": json.loads(line)["id"], "output": answer}), file=out)
said = [g.lower().strip(".") == "true" for g in given]
hits = sum(s and label for s, (_, label) in zip(said, candidates))
exact = [all((g.lower().strip(".") == ("true" if label else "false")) for g, (k, label) in zip(given, candidates) if k == q) for q in range(len(truth)) if len(truth[q]) > 1]
print("%.9f %.9f" % (200 * hits / (sum(said) + sum(label for _, label in candidates)), 100 * sum(exact) / len(exact)))
END
        "$FLANMOE" eval "${suite[@]}" --answers answers.jsonl --json > scores.json 2> scores.log || fault 'scores of MultiRC' scores.log
        python3 -c 'import json
whole = json.load(open("scores.json"))["tasks"][0]["whole"]
print("%.9f %.9f" % tuple(whole[name]["value"] for name in ("f1a", "consistency")))' | cmp -s - f1a.txt || fault "F1a of MultiRC in $folder" f1a.txt
    done
fi

# One sentence for what cannot be.
tune=("$FLANMOE" train small.toml configs/recipe/finetune.toml configs/recipe/finetune/sick.toml --run runs/refused "${quick[@]}" --set data.folder=own)
refuse 64 'eval.metric = .accuracy. needs options to choose from, an accepted answer among them' "${tune[@]}" --set eval.metric=accuracy
refuse 64 'there are no two' "${tune[@]}" --set eval.metric=consistency
refuse 64 'no task matches data.only = sick/relatednes \(did you mean sick/relatedness\?\)' "${tune[@]}" --set 'data.only=["sick/relatednes"]'
refuse 64 'data.validation_split stands in place' "${tune[@]}" --set 'data.validation=["toy"]'
refuse 64 'has no split .exam.' "${tune[@]}" --set data.validation_split=exam
refuse 64 'has no split .exam.' "${tune[@]}" --set eval.test_split=exam
refuse 66 'get it from SemEval' "${tune[@]}" --set data.folder=nowhere
refuse 64 'all 10 validation examples must be answered, not 3; set eval.samples to 10' "$FLANMOE" train small.toml configs/recipe/finetune.toml configs/recipe/finetune/multirc.toml --run runs/refused \
    "${quick[@]}" --set data.folder=many --set eval.metric=consistency --set eval.samples=3

if [ -d "$data" ]; then
    finetune condaqa "$data" --set 'data.only=["condaqa/dev"]' --set eval.samples=300
    has condaqa consistency
    finetune pubmedqa "$data"
    finetune sick "$data"
    has sick pearson spearman
    finetune cxc "$data"
    grep -q 'captions of CxC stay the ids' runs/cxc.log || fault 'ids in place of captions are not said' runs/cxc.log
    for set in boolq cb copa rte wic; do finetune $set "$data" --set data.mixture=configs/task/superglue.toml --set "data.only=[\"superglue/$set\"]" --set eval.metric=accuracy --set eval.samples=8; done
fi
