# Task files: every one that ships is understood; where the real files are, every record goes through every template.
data=${FLANMOE_DATA:-$ROOT/../shared/data}

expect 0 'cot/gsm8k' "$FLANMOE" data tasks "$ROOT/configs/task/gsm8k.toml" --data nowhere
expect 0 'missing' "$FLANMOE" data tasks "$ROOT/configs/task" --data nowhere
printf 'name = "x"\nraeder = "arc"\n' > bad.toml
refuse 64 'task x has no reader' "$FLANMOE" data tasks bad.toml
printf 'name = "birds"\nreader = "arc"\nanswer = "{{ answer }}"\n[files]\ntest = ["arc.jsonl"]\n[[template]]\ninputs = "{{ question }}\\n{{ options_ }}"\ntargets = "{{ answer }}"\n' > birds.toml
expect 0 '"inputs":"Which flies\?\\nOPTIONS:\\n- stone\\n- wren","targets":\["wren"\]' "$FLANMOE" data tasks birds.toml --data "$ROOT/test/data/readers/files" --jsonl --count 1
expect 0 '"inputs":"Which flies\?","targets":\["wren"\]' "$FLANMOE" data tasks birds.toml --data "$ROOT/test/data/readers/files" --jsonl --count 1 --no-options

if [ -d "$data" ]; then
    expect 0 '^298 tasks$' "$FLANMOE" data tasks "$ROOT/configs/task" --data "$data"
    # The sum of the counts in readers_test.sh (SICK and CondaQA's development set twice) and the 2,156 of all of instruction induction: 120,218 records, none malformed
    "$FLANMOE" data tasks "$ROOT/configs/task" --data "$data" | awk '/ missing /{next} NF > 8 && $2 != "split" {gsub(",", ""); records += $(NF - 4); malformed += $(NF - 3); nothing += $NF} END {print records, malformed, nothing}' > sums
    expect 0 '^120218 0 0$' cat sums
fi
