# A sweep: a grid of runs into one table, interrupted in every way, extended, shared by processes; cells that fail do not end it; an array of jobs runs the same cells.
tiny_world
base=(instruct.toml --set train.steps=12 --set eval.every=4 --set train.save_every=4)
grid=(--axis optimizer.learning_rate=1e-2,1e-3 --axis data.batch_rows=4,8)
sweep() { "$FLANMOE" sweep "${base[@]}" "${grid[@]}" --run "$@" 2>&1 < /dev/null; }
field() { python3 -c 'import json, sys; t = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$@"; }  # field FILE EXPRESSION in t

sweep whole > whole.log || fault 'a sweep' whole.log
[ "$(grep -c ' done ' whole.log)" = 4 ] && [ "$(grep -c ' best$' whole.log)" = 1 ] || fault 'four cells are done, one is the best' whole.log
[ "$(head -1 whole/table.csv)" = 'cell,optimizer.learning_rate,data.batch_rows,state,loss,best_step,step,test,best,message' ] || fault 'the head of the table' whole/table.csv
grep -q '^1,0.01,8,done,' whole/table.csv && grep -q '^2,0.001,4,done,' whole/table.csv || fault 'the order of cells' whole/table.csv
grep -q '^batch_rows = 8$' whole/3/config.toml && grep -q '^learning_rate = 0.001$' whole/3/config.toml || fault 'what cell 3 is'
if command -v python3 > /dev/null; then
    [ "$(field whole/table.json 'min(t["cells"], key=lambda c: c["validation"])["cell"] == t["best"]')" = True ] || fault 'the best cell has the least loss' whole/table.json
    # A cell is the run that it would be by hand, and its figure is of that run.
    train instruct.toml hand --set train.steps=12 --set eval.every=4 --set train.save_every=4 --set optimizer.learning_rate=1e-3 --set data.batch_rows=4
    same_run whole/2 hand
    least=$(grep '"kind":"validation"' hand/metrics.jsonl | grep -o '"loss":[^,]*' | cut -d: -f2 | sort -g | head -1)
    [ "$(field whole/table.json "abs(t['cells'][2]['validation'] - $least) < 1e-6")" = True ] || fault 'the figure of cell 2' whole/table.json
fi

# Started again it does nothing; another grid or config is refused, and extended when that is said.
before=$(find whole -name 'metrics.jsonl' -newer whole.log)
sweep whole > again.log || fault 'a finished sweep is started again' again.log
[ "$(find whole -name 'metrics.jsonl' -newer whole.log)" = "$before" ] || fault 'a finished cell was run again'
cmp -s <(grep -v '^cell [0-9]* (' whole.log) again.log || fault 'another table'
refuse 64 'holds a sweep of another config \(train.seed was 0 and is 1\)' "$FLANMOE" sweep "${base[@]}" --set train.seed=1 "${grid[@]}" --run whole
refuse 64 '2 of the 6 cells of this grid are not in the sweep of whole, the first with optimizer.learning_rate=0.02 data.batch_rows=4; add them with --extend' \
    "$FLANMOE" sweep "${base[@]}" --axis optimizer.learning_rate=1e-2,1e-3,0.02 --axis data.batch_rows=4,8 --run whole
refuse 64 'has 2 cells besides those of this grid' "$FLANMOE" sweep "${base[@]}" --axis optimizer.learning_rate=1e-2 --axis data.batch_rows=4,8 --run whole
refuse 64 'holds a sweep over optimizer.learning_rate, data.batch_rows, not over train.seed' "$FLANMOE" sweep "${base[@]}" --axis train.seed=1,2 --run whole
expect 0 '^ +4 +0.02 +4 +done' "$FLANMOE" sweep "${base[@]}" --axis optimizer.learning_rate=1e-2,1e-3,0.02 --axis data.batch_rows=4,8 --run whole --extend
[ "$(wc -l < whole/table.csv)" = 7 ] && grep -q '^2,0.001,4,done,' whole/table.csv || fault 'cells keep their numbers' whole/table.csv

# Stopped by a signal in the midst of a cell: saved, 75, the same command goes on, and the end is the same bits. Killed: the same.
for signal in TERM INT KILL; do
    rm -rf cut
    "$FLANMOE" sweep "${base[@]}" "${grid[@]}" --run cut > cut.log 2>&1 < /dev/null &
    job=$!
    wait_for cut/1 2
    kill -$signal $job
    wait $job 2> /dev/null
    code=$?
    [ $signal = KILL ] || [ $code = 75 ] || fault "$signal: exit code $code" cut.log
    for i in $(seq 200); do  # after KILL the cell's run ends by itself, and holds the cell until then
        sweep cut > on.log
        [ "$(grep -c ' done ' on.log)" = 4 ] && break
        sleep 0.05
    done
    [ "$(grep -c ' done ' on.log)" = 4 ] || fault "$signal: it does not go on" on.log
    for cell in 0 1 2 3; do same_run whole/$cell cut/$cell; done
done

# A signal that meets a cell before it can heed signals waits until it can: the cell has not failed.
for ((round = 0; round < 3; round++)); do
    rm -rf early early.log
    timeout 20 "$FLANMOE" sweep "${base[@]}" --set train.steps=1000000 --set train.save_every=0 --set eval.every=100000 "${grid[@]}" --run early > early.log 2>&1 < /dev/null &
    job=$!
    for ((i = 0; i < 2000; i++)); do
        grep -qs ' begins, see' early.log && break
        sleep 0.001
    done
    kill -TERM $job
    wait $job
    [ $? = 75 ] && ! grep -q ',failed,' early/table.csv || fault 'a signal at the start of a cell' early.log
done

# A cell that fails is recorded with its sentence, and the others are run; it is tried again when that is said.
expect 66 'cell 1 .*: .*(nowhere|does not exist).*exit code 66' "$FLANMOE" sweep "${base[@]}" --axis 'data.validation=["toy/instruct/valid"],["nowhere"]' --run failing
grep -q '^0,.*,done,' failing/table.csv && grep -q '^1,.*,failed,' failing/table.csv || fault 'one cell fails' failing/table.csv
expect 66 'cell 1 .* failed before: .*--retry tries it again' "$FLANMOE" sweep "${base[@]}" --axis 'data.validation=["toy/instruct/valid"],["nowhere"]' --run failing
cp -r toy/instruct/valid nowhere
expect 0 '^ +1 .* done ' "$FLANMOE" sweep "${base[@]}" --axis 'data.validation=["toy/instruct/valid"],["nowhere"]' --run failing --retry
expect 0 ' 0 .* done ' "$FLANMOE" sweep "${base[@]}" --axis 'data.validation=["toy/instruct/valid"],["nowhere"]' --run failing --cell 0

# The exit code is that of the first cell that failed, whatever ended it and whatever its file says; of one cell that is asked for, its own.
failing=(--axis 'data.validation=["missing"],["model.toml"],["toy/instruct/valid"]')
expect 66 ' 2 .* done ' "$FLANMOE" sweep "${base[@]}" "${failing[@]}" --run codes
[ "$(grep -c ',failed,' codes/table.csv)" = 2 ] && grep -q '"code":65' codes/1.failed.json || fault 'two cells fail, each in its way' codes/table.csv
expect 65 ' 1 .* failed ' "$FLANMOE" sweep "${base[@]}" "${failing[@]}" --run codes --cell 1
expect 0 ' 2 .* done ' "$FLANMOE" sweep "${base[@]}" "${failing[@]}" --run codes --cell 2
echo '{}' > codes/0.failed.json
expect 70 ' 0 .* failed ' "$FLANMOE" sweep "${base[@]}" "${failing[@]}" --run codes
"$FLANMOE" sweep "${base[@]}" --set train.steps=1000000 --set train.save_every=0 --set eval.every=100000 --axis train.seed=1 --run killed > killed.log 2>&1 < /dev/null &
job=$!
for ((i = 0; i < 3000; i++)); do
    victim=$(pgrep -P $job) && [ -s killed/0/metrics.jsonl ] && break
    sleep 0.02
done
kill -KILL $victim
wait $job
[ $? = 137 ] && grep -q ',failed,.*ended by signal 9' killed/table.csv || fault 'a cell that is killed' killed.log

# Two processes share the cells; one cell of an array of jobs; the lines of options for the batch script are the same cells.
sweep shared > one.log &
sweep shared > two.log
wait
[ "$(cat one.log two.log | grep -c ' begins, see')" = 4 ] || fault 'two processes run a cell each once' two.log
sweep shared > shared.log
[ "$(grep -c ' done ' shared.log)" = 4 ] || fault 'two processes make the table' shared.log
sweep array --cell 2 > array.log
[ -d array/2 ] && [ ! -d array/1 ] && grep -q '^2,.*,done,' array/table.csv && grep -q '^1,.*,waiting,' array/table.csv || fault 'one cell' array.log
same_run whole/2 array/2
sweep lines --list > options.txt
[ "$(sed -n 3p options.txt)" = '--set optimizer.learning_rate=0.001 --set data.batch_rows=4' ] || fault 'options for an array' options.txt
read -ra options <<< "$(sed -n 3p options.txt)"
"$FLANMOE" train "${base[@]}" "${options[@]}" --run lines/2 > lines.log 2>&1 < /dev/null || fault 'a cell by its line' lines.log
expect 0 ' 2 +0.001 +4 +done' "$FLANMOE" sweep "${base[@]}" "${grid[@]}" --run lines --cell 2

refuse 64 'is no list of values' "$FLANMOE" sweep "${base[@]}" --axis train.seed --run other
refuse 64 'did you mean train.seed' "$FLANMOE" sweep "${base[@]}" --axis train.sede=1 --run other
refuse 64 'has the value 0.001 twice' "$FLANMOE" sweep "${base[@]}" --axis optimizer.learning_rate=1e-3,0.001 --run other
refuse 64 'the axis train.seed is given twice' "$FLANMOE" sweep "${base[@]}" --axis train.seed=1 --axis train.seed=2 --run other
refuse 64 'cell data.batch_rows=3: data.micro_batch_rows is 2 and must divide' "$FLANMOE" sweep "${base[@]}" --axis data.batch_rows=4,3 --run other
refuse 64 'eval.metric is what a sweep compares' "$FLANMOE" sweep "${base[@]}" --set eval.samples=2 --axis eval.metric=f1 --run other
refuse 64 'names no validation data' "$FLANMOE" sweep "${base[@]}" --set 'data.validation=[]' --axis train.seed=1 --run other
refuse 64 '--cell 4 is not among the 4 cells' "$FLANMOE" sweep "${base[@]}" "${grid[@]}" --run whole2 --cell 4
refuse 73 'is not empty and holds no sweep' "$FLANMOE" sweep "${base[@]}" "${grid[@]}" --run toy
