# Records against other tools: the same fields of the published files by jq or Python, as one JSON list a line, have the same MD5 sum. Runs on the real files where
# they are (../shared/data, or $FLANMOE_DATA); the sums of those files are recorded here, so that it checks without jq, too.
data=${FLANMOE_DATA:-$ROOT/../shared/data}

expect 0 'gsm8k .*question, answer, rationale, solution' "$FLANMOE" data readers
expect 0 '^\["42"\]' "$FLANMOE" data records gsm8k "$ROOT/test/data/readers/files/gsm8k.jsonl" --fields answer --count 1
expect 0 '2 records, 0 malformed' "$FLANMOE" data records gsm8k "$ROOT/test/data/readers/files/gsm8k.jsonl"
refuse 64 "did you mean gsm8k" "$FLANMOE" data records gsmk8 x
refuse 64 "has no field 'letter'; it has: question" "$FLANMOE" data records gsm8k "$ROOT/test/data/readers/files/gsm8k.jsonl" --fields letter
refuse 65 'gsm8k.jsonl:1 has no field' "$FLANMOE" data records aqua "$ROOT/test/data/readers/files/gsm8k.jsonl"

# same READER FIELDS RECORDS MD5 'FILES': files below the data folder; standard input is the other tool's command, run in that folder.
same() {
    local reader=$1 fields=$2 count=$3 sum=$4 files=$5 command ours theirs lines
    [ -d "$data" ] || return 0
    command=$(cat)
    # shellcheck disable=SC2086
    (cd "$data" && "$FLANMOE" data records "$reader" $files --fields "$fields" 2> /dev/null) > ours.jsonl
    ours=$(md5sum < ours.jsonl | cut -d' ' -f1) lines=$(wc -l < ours.jsonl)
    if [ "$ours" != "$sum" ] || [ "$lines" != "$count" ]; then
        echo "  $reader $files: $lines records with sum $ours, recorded are $count with $sum"
        failures=$((failures + 1))
    fi
    command -v jq > /dev/null && command -v python3 > /dev/null || return 0
    theirs=$(cd "$data" && eval "$command" | md5sum | cut -d' ' -f1)
    if [ "$theirs" != "$sum" ]; then
        echo "  $reader $files: the other tool's sum is $theirs, recorded is $sum"
        failures=$((failures + 1))
    fi
}

same natural_instructions id,input,output,definition,categories 15672 5c04251ecdd170e5399ac9d481e75cb2 'natural-instructions/tasks/*.json' << 'BY'
jq -c '(.Definition|join("\n")|gsub("^\\s+|\\s+$";"")) as $d | .Categories as $c | .Instances[] | [.id,.input,.output,$d,$c]' natural-instructions/tasks/*.json
BY
same natural_instructions input,output,definition,title 1350 ea034f4cc65b12dc08fa2abc4a02c745 'natural-instructions-v1/tasks/*.json' << 'BY'
jq -c '(.Definition|gsub("^\\s+|\\s+$";"")) as $d | (.Title|gsub("^\\s+|\\s+$";"")) as $t | .Instances[] | [.input,.output,$d,$t]' natural-instructions-v1/tasks/*.json
BY
same p3 inputs,targets 8691 91d90e6e5ede4cbee5f618f70b84fde9 't0-p3/*.jsonl' << 'BY'
jq -c '[.prompt,[.completion|sub("<\\|endoftext\\|>$";"")]]' t0-p3/*.jsonl
BY
same flan_cot question,answer,rationale 25970 6b4fd2bedd75e7e3ab1ee3a7cd9a81bf 'flan-cot/*_train.tsv' << 'BY'
jq -Rc 'split("\t")|map(gsub("\\\\n";"\n"))' flan-cot/*_train.tsv
BY
same gsm8k question,answer,rationale,solution 8792 2a84549e75ed27e5fb5a2d40e411067f 'gsm8k/train.jsonl gsm8k/test.jsonl' << 'BY'
jq -c '(.answer|split("####")) as $p | [.question,($p[-1]|gsub("^\\s+|\\s+$";"")),($p[0]|gsub("<<[^>]*>>";"")|gsub("^\\s+|\\s+$";"")),.answer]' gsm8k/train.jsonl gsm8k/test.jsonl
BY
same strategyqa id,question,answer,facts,decomposition,term,description 229 1e256a3931e601d40e46077173659ae2 'strategyqa/dev.json' << 'BY'
jq -c '.[]|[.qid,.question,(if .answer then "yes" else "no" end),.facts,.decomposition,.term,.description]' strategyqa/dev.json
BY
same e_snli premise,hypothesis,label,rationale 3000 8370bbb5292d2a4fabaffe6d576e163a 'e-snli/s1.dev e-snli/s2.dev e-snli/labels.dev e-snli/preproc1_expl_1.dev' << 'BY'
paste e-snli/s1.dev e-snli/s2.dev e-snli/labels.dev e-snli/preproc1_expl_1.dev | jq -Rc 'split("\t")|map(gsub("^\\s+|\\s+$";""))'
BY
same self_instruct id,instruction,input,output 427 5ac6ac52b8abf69a0021d97d703bc35f 'self-instruct/seed_tasks.jsonl self-instruct/user_oriented_instructions.jsonl' << 'BY'
jq -c '. as $t|.instances[]|[$t.id,$t.instruction,.input,.output]' self-instruct/seed_tasks.jsonl self-instruct/user_oriented_instructions.jsonl
BY
same bbh input,target 3256 b3ec18b7dc7026b889642c5a90f199ca 'bbh/bbh/*.json' << 'BY'
jq -c '.examples[]|[.input,.target]' bbh/bbh/*.json
BY
same svamp id,body,asked,answer,equation,type 1000 403c236a39f2b24b8957b8f20ec3d857 'svamp/SVAMP.json' << 'BY'
jq -c '.[]|[.ID,.Body,.Question,(.Answer|tostring),.Equation,.Type]' svamp/SVAMP.json
BY
same mgsm question,answer,language 2750 ce2531fed5bbed66fb1333b840460cb9 'mgsm/*.tsv' << 'BY'
for f in mgsm/*.tsv; do l=${f#mgsm/mgsm_}; jq -Rc --arg l "${l%.tsv}" 'split("\t")+[$l]' "$f"; done
BY
same commonsenseqa id,question,options,letters,answer,letter,concept 427 2ad943928c638a71fd27137c9fce485b 'commonsenseqa/dev_not_in_ecqa_train.jsonl' << 'BY'
jq -c '.answerKey as $k|[.id,.question.stem,[.question.choices[].text],[.question.choices[].label],(.question.choices[]|select(.label==$k).text),$k,.question.question_concept]' commonsenseqa/dev_not_in_ecqa_train.jsonl
BY
same condaqa context,question,answer,cue,passage_id,edit_id,question_id 1811 505bb2387087463f409d80e2166c6c3f 'condaqa/condaqa_dev.json condaqa/conda_fewshot_test_1_even.json condaqa/few-shot-train/*.json' << 'BY'
jq -c '[.sentence1,.sentence2,.label,."original cue",(.PassageID|tostring),(.PassageEditID|tostring),(.QuestionID|tostring)]' condaqa/condaqa_dev.json condaqa/conda_fewshot_test_1_even.json condaqa/few-shot-train/*.json
BY
same cxc caption1,caption2,score,sampling_method 2000 db17b23a556f91e991da83e4552ef7e8 'cxc/sts_val.csv' << 'BY'
tail -n +2 cxc/sts_val.csv | tr -d '\r' | jq -Rc 'split(",")'
BY
same pubmedqa id,question,contexts,answer,long_answer 1000 145cdbd8c40d404cc657af8cea618f6a 'pubmedqa/ori_pqal.json' << 'BY'
jq -c 'to_entries[]|[.key,.value.QUESTION,.value.CONTEXTS,.value.final_decision,.value.LONG_ANSWER]' pubmedqa/ori_pqal.json
BY
same sick id,premise,hypothesis,score,label 9927 082061b29493a183c93d258eed2a053c 'sick/SICK_train.txt sick/SICK_trial.txt sick/SICK_test_annotated.txt' << 'BY'
for f in train trial test_annotated; do tail -n +2 sick/SICK_$f.txt; done | tr -d '\r' | jq -Rc 'split("\t")|.[4]|=ascii_downcase'
BY
same glue sentence,label 10593 1d6a2a6c9bc4a389d3780eb2ef37ce67 'glue-superglue-small/*/train.json glue-superglue-small/*/dev.json' << 'BY'
jq -c '.[]|[.sentence,.label]' glue-superglue-small/*/train.json glue-superglue-small/*/dev.json
BY
same aqua question,options,letters,answer,letter,rationale 508 f432977f0e3bde8c2f482b2533ea2d03 'aqua/dev.json aqua/test.json' << 'BY'
jq -c '.correct as $c | (.options|map(.[0:1])) as $l | (.options|map(.[2:]|gsub("^\\s+|\\s+$";""))) as $o | [.question,$o,$l,$o[$l|index($c)],$c,.rationale]' aqua/dev.json aqua/test.json
BY
same mmlu question,options,letter 7317 73b213907466b0026920e52ca3ed736f 'mmlu/dev/*.csv mmlu/test/*.csv' << 'BY'
python3 -c "import csv,json,sys
for f in sys.argv[1:]:
    for r in list(csv.reader(open(f,newline='',encoding='utf-8')))[1:]: print(json.dumps([r[0],r[1:5],'ABCD'[int(r[5])]],ensure_ascii=False,separators=(',',':')))" mmlu/dev/*.csv mmlu/test/*.csv
BY
same asdiv id,body,asked,full_answer,formula,type,grade 2305 66613bf4887f74fea63d7574526b6018 'asdiv/ASDiv.xml' << 'BY'
python3 -c "import json,xml.etree.ElementTree as t
for p in t.parse('asdiv/ASDiv.xml').iter('Problem'): print(json.dumps([p.get('ID')]+[(p.find(n).text or '').strip() for n in ('Body','Question','Answer','Formula','Solution-Type')]+[p.get('Grade')],ensure_ascii=False,separators=(',',':')))"
BY
same tydiqa id,language,question,document,passages,answers 14 4e1124b1a8996f39a1a14acd7683de54 'tydiqa-sample/tiny_dev.jsonl.gz tydiqa-sample/small_gold_annotation.jsonl' << 'BY'
(zcat tydiqa-sample/tiny_dev.jsonl.gz; cat tydiqa-sample/small_gold_annotation.jsonl) | python3 -c "import json,sys
for l in sys.stdin:
    r=json.loads(l); t=r['document_plaintext'].encode(); s=lambda c:t[c['plaintext_start_byte']:c['plaintext_end_byte']].decode() if c['plaintext_start_byte']>=0 else ''
    a=[x for x in dict.fromkeys(s(n['minimal_answer']) for n in r['annotations']) if x]
    print(json.dumps([str(r['example_id']),r['language'],r['question_text'],r['document_plaintext'],[s(c) for c in r['passage_answer_candidates']],a],ensure_ascii=False,separators=(',',':')))"
BY
same instruction_induction id,input,output 300 98f12433eef924927fe3a19b3c294851 'instruction-induction/execute/sum.json instruction-induction/execute/antonyms.json instruction-induction/execute/translation_en-fr.json' << 'BY'
jq -c '.examples|to_entries[]|[.key,.value.input,.value.output]' instruction-induction/execute/sum.json instruction-induction/execute/antonyms.json instruction-induction/execute/translation_en-fr.json
BY
