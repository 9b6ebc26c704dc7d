# Evaluation, generation and benchmarks on several ranks under mpirun: the results of one rank, written once; what is sent; what is refused. Needs mpirun (openmpi-bin).
tiny_world
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# on N options...: the program on N ranks.
on() {
    local n=$1
    shift
    timeout 120 mpirun -q --oversubscribe -n "$n" "$FLANMOE" "$@" < /dev/null
}
# same_answers A B: the same texts and choices of two evaluations, and log-probabilities to 1e-5 (f32 sums in another order).
same_answers() {
    local numbers='"(nll|option_log_p|loss)":[^"]*'
    for file in answers.jsonl summary.json; do
        diff <(sed -E 's/ //g' "$1/$file" | sed -E "s/$numbers//g") <(sed -E 's/ //g' "$2/$file" | sed -E "s/$numbers//g") > answers.diff || fault "$2/$file is not $1/$file" answers.diff
        paste <(grep -oE "$numbers" <(sed -E 's/ //g' "$1/$file") | grep -oE '[-0-9.e]+[0-9]') <(grep -oE "$numbers" <(sed -E 's/ //g' "$2/$file") | grep -oE '[-0-9.e]+[0-9]') |
            awk 'NF != 2 { bad = 1 } { d = $1 - $2; if (d < 0) d = -d; s = $1 < 0 ? -$1 : $1; if (d > 1e-5 * (s > 1 ? s : 1)) bad = 1 } END { exit bad || NR == 0 }' || fault "numbers of $2/$file are not those of $1/$file"
    done
}

# A run whose validation generates, on ranks that share experts: it must judge the same answers as one rank would.
options=(--set train.steps=12 --set train.save_every=0 --set eval.every=12 --set eval.samples=5)
ends 0 instruct.toml alone "${options[@]}"
on 2 train instruct.toml --run run "${options[@]}" --set parallel.expert=2 > run.log 2>&1 || fault 'train on 2 expert ranks with answers' run.log
for name in exact_match f1 rouge_l; do
    [ "$(grep -o "\"$name\":[^,}]*" alone/metrics.jsonl)" = "$(grep -o "\"$name\":[^,}]*" run/metrics.jsonl)" ] && grep -q "\"$name\"" run/metrics.jsonl || fault "validation's $name is not that of one rank" run.log
done
tasks=(toy/instruct/valid --limit 5 --max-new-tokens 12 --batch 16)
"$FLANMOE" eval run "${tasks[@]}" --out one > one.log 2>&1 || fault 'eval on one rank' one.log
on 2 eval run "${tasks[@]}" --out data > data.log 2>&1 || fault 'eval on 2 data ranks' data.log
on 2 eval run "${tasks[@]}" --set parallel.expert=2 --out expert > expert.log 2>&1 || fault 'eval on 2 expert ranks' expert.log
on 2 eval run "${tasks[@]}" --set parallel.tensor=2 --out tensor > tensor.log 2>&1 || fault 'eval on 2 tensor ranks' tensor.log
for out in data expert tensor; do
    same_answers one $out
    [ "$(grep -c 'mean of' $out.log)" = 1 ] && [ "$(grep -c 'evaluated in' $out.log)" = 1 ] || fault "$out: the table must be printed once" $out.log
done

# Greedy, samples and beams; a prompt draws the same wherever it is computed.
head -7 toy/vocabulary.txt | cut -c1-40 > prompts
words=(generate run --max-new-tokens 10 --batch 2)
for case in 'data=0' 'expert=2 --temperature 0.9 --seed 3'; do
    mesh=${case%% *} options=${case#"${case%% *}"}
    # shellcheck disable=SC2086
    "$FLANMOE" "${words[@]}" --file prompts $options > one.txt 2> one.log || fault "generate $options" one.log
    # shellcheck disable=SC2086
    on 2 "${words[@]}" --file prompts $options --set parallel.$mesh > two.txt 2> two.log || fault "generate $case" two.log
    cmp -s one.txt two.txt || fault "generate $case: 2 ranks print something else" two.txt
done
"$FLANMOE" "${words[@]}" --beams 3 < prompts > one.txt 2> one.log || fault 'generate with beams from standard input' one.log
timeout 60 mpirun -q --oversubscribe -n 2 "$FLANMOE" "${words[@]}" --beams 3 < prompts > two.txt 2> two.log
cmp -s one.txt two.txt || fault 'generate from standard input: 2 ranks print something else' two.log

# What a step sends is what the plan says; the loss is that of one rank.
bench() { sed -E 's/.*"loss": ([0-9.]+).*/\1/' "$1"; }
wide=(bench span.toml --set model.d_model=64 --set train.recompute=none --steps 2 --warmup 1 --matmul-size 64 --json)
"$FLANMOE" "${wide[@]}" > one.json 2> one.log || fault 'bench on one rank' one.log
for case in '2 data=2' '4 data=1 expert=2 tensor=2'; do
    read -r n mesh <<< "$case"
    # shellcheck disable=SC2086
    on $n "${wide[@]}" $(printf -- '--set parallel.%s ' $mesh) > ranks.json 2> ranks.log || fault "bench on $case" ranks.log
    [ "$(wc -l < ranks.json)" = 1 ] && grep -q "\"ranks\": $n, " ranks.json || fault "bench on $case must print one line" ranks.json
    grep -oE '"planned_bytes": [0-9.]+, "ratio": ([0-9.]+|null)' ranks.json | awk '{ if ($4 < 0.9999 || $4 > 1.0001) bad = 1 } END { exit bad || NR == 0 }' || fault "bench on $case: bytes are not those of the plan" ranks.json
    awk -v a="$(bench one.json)" -v b="$(bench ranks.json)" 'BEGIN { d = a - b; exit !((d < 0 ? -d : d) <= 2e-4 * a) }' || fault "bench on $case: loss $(bench ranks.json) instead of $(bench one.json)"
done

expect 64 'rank 1 has another command line than rank 0 \(nothing, not "--' \
    timeout 60 mpirun -q --oversubscribe -n 1 "$FLANMOE" eval run "${tasks[@]}" : -n 1 "$FLANMOE" eval run toy/instruct/valid
refuse 64 'there are 2 ranks, but parallel.data x parallel.expert x parallel.tensor is .* x 3 x 1' timeout 60 mpirun -q --oversubscribe -n 2 "$FLANMOE" eval run "${tasks[@]}" --set parallel.expert=3
refuse 66 'nothing does not exist' timeout 60 mpirun -q --oversubscribe -n 2 "$FLANMOE" eval run nothing
expect 64 'a routing trace runs on one rank, but 2 were started' timeout 60 mpirun -q --oversubscribe -n 2 "$FLANMOE" eval run "${tasks[@]}" --routing-trace

# A rank that is killed ends all, by name.
on 2 eval run toy/instruct/train --batch 1 --beams 128 --max-new-tokens 400 > killed.log 2>&1 &
job=$! victim=
for ((i = 0; i < 1000 && ${#victim} == 0; i++)); do
    sleep 0.01
    for process in $(pgrep -f 'eval run toy/instruct/train'); do
        [ "$(cat "/proc/$process/comm" 2> /dev/null)" = flanmoe ] && tr '\0' '\n' < "/proc/$process/environ" 2> /dev/null | grep -qx OMPI_COMM_WORLD_RANK=1 && victim=$process
    done
done
sleep 1
kill -KILL "$victim"
wait $job
status=$?
[[ $status =~ ^(76|137)$ ]] && grep -qE "rank 1 \(process $victim on .*\) has ended.*evaluation.*; give the command again" killed.log || fault "KILL of a rank: exit code $status" killed.log
