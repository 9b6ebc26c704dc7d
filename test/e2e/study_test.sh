# The study of run/flan_study.sh in its smallest size on the real files, with one cell of each further axis: stopped by a signal in the midst of it, gone on with, and its page.
data=${FLANMOE_DATA:-$ROOT/../shared/data} python=${PYTHON:-python3}
if [ ! -d "$data" ]; then
    echo "        skipped: $data is not there (FLANMOE_DATA names the published files)"
elif ! "$python" -c 'import matplotlib' 2> /dev/null; then
    echo "        skipped: $python has no matplotlib, which draws the figures (PYTHON names another)"
else
    export CELLS='reference tasks-9 experts-2 freeze-gate losses-none expert-dropout-0'
    # All the sets, but little text.
    mkdir files files/wikitext-2
    for set in "$data"/*; do case ${set##*/} in wikitext-2 | british-fiction | peps | tinyshakespeare) ;; *) ln -s "$(realpath "$set")" files/ ;; esac; done
    cp "$data"/wikitext-2/*.txt files/wikitext-2/
    study() { "$ROOT/run/flan_study.sh" files out probe; }
    # A process group of its own, as a terminal would give it, which the signal reaches as a whole.
    setsid "$ROOT/run/flan_study.sh" files out probe > first.log 2>&1 < /dev/null &
    job=$!
    for ((i = 0; i < 30000; i++)); do
        { [ -s out/dense/instruct/metrics.jsonl ] || [ -s out/st-moe/instruct/metrics.jsonl ]; } && break
        kill -0 $job 2> /dev/null || break
        sleep 0.02
    done
    kill -TERM $job
    wait $job
    [ $? = 75 ] || fault 'a study that is stopped does not end with 75' first.log
    [ ! -e out/page ] || fault 'it was at its end before it was stopped' first.log
    done_before=$(grep -ls '"state": "done"' out/*/*/status.json | sort)
    study > second.log 2>&1 < /dev/null || fault 'the study does not go on' second.log
    for run in $done_before; do ! grep -q "== .*: $(dirname "${run#out/}")\$" second.log || fault "$(dirname "$run") is trained again" second.log; done

    page=out/page/README.md
    for title in 'The models' 'Instruction tuning' 'Learning over the steps' 'Finetuning directly' 'Further axes' 'Routing'; do grep -q "^## .*$title" $page || fault "the page has no section '$title'" second.log; done
    # Every axis stands there, with figures in the line of its cell.
    for axis in 'Number of tasks:9' 'Number of experts:2' 'Freezing:gate' 'Auxiliary losses while tuning:none' 'Expert dropout:0'; do
        awk -v title="**${axis%:*}**" -v cell="| ${axis#*:} |" '$0 == title {inside = 1} inside && index($0, cell) == 1 {found = $0} /^\*\*/ && $0 != title {inside = 0} END {print found}' $page > line
        grep -q '[0-9]\.[0-9]* | [0-9.]* | .*\[' line && ! grep -q '| – |' line || fault "the page has no figures of '$axis'" line
    done
    # Every figure that the page shows is there, with the names of what its axes count.
    for figure in average:'normalised average' steps:step steps:'loss on held-out tasks' finetuning:mean tasks:'tasks tuned on' tasks:'loss on held-out tasks'; do
        grep -q "](${figure%%:*}.svg)" $page && grep -q ">${figure#*:}<" "out/page/${figure%%:*}.svg" || fault "figure ${figure%%:*} does not name '${figure#*:}'" second.log
    done
    for name in 'dense T5' ST-MoE; do grep -q ">$name<" out/page/average.svg && grep -q "^| $name |" $page || fault "no $name"; done

    # Given again it does nothing but the page, which is the same.
    cp $page before.md
    study > third.log 2>&1 < /dev/null || fault 'a finished study' third.log
    cmp -s $page before.md && ! grep -q '^== .*: \|^== evaluation' third.log || fault 'a finished study is made again' third.log
fi
