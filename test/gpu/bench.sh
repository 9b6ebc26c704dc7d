#!/bin/bash
# The figures of a GPU, each beside its goal and the time that counted operations and bytes predict: make gpu-bench, or this script in the folder that make bundle
# packs. About 15 minutes on an H100 or H200 (80 GB do not hold the model of 128 experts: said so, the rest goes on).
#
#   test/gpu/bench.sh                  # all; test/gpu/bench.sh operations steps twins: these parts
#
# Prints text, and writes one JSON line a figure to build/gpu-bench.jsonl (or $OUT). "share" is of P (the rate of a bf16 product of 8192 cubed, random values), of B
# (bytes that a copy reads and writes a second), both measured in the same run, or of what the line names; milliseconds are medians, in brackets the fastest and
# slowest. FLANMOE and OPS_BENCH name the programs, DEVICE_RATES the device of the predictions (by default the one that is there: a100, h100, h200).
# SMALL=1: small shapes, to try the script on the simulator (build/flanmoe-sim, build/ops-bench-sim). Exit code 69: no GPU.
cd "$(dirname "$0")/../.." || exit 1
FLANMOE=${FLANMOE:-build/flanmoe} OPS_BENCH=${OPS_BENCH:-build/ops-bench} OUT=${OUT:-build/gpu-bench.jsonl}
[ $# -gt 0 ] || set -- operations steps twins
name=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2> /dev/null | head -1)
case $name in *H200*) rates=h200 ;; *A100*) rates=a100 ;; *) rates=h100 ;; esac
rates=${DEVICE_RATES:-$rates}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$FLANMOE" parity test/oracle/t5-one --device cuda > "$scratch/log" 2>&1
if [ $? = 69 ]; then
    sed 's/^.*t5-one: //; s/^flanmoe: //' "$scratch/log"
    exit 69
fi
printf '{"device": "%s", "predictions": "%s", "date": "%s"}\n' "$name" "$rates" "$(date +%F)" > "$OUT"
echo "${name:-the simulator}, predictions for $rates"
printf '%-52s %10s %22s %9s %-12s %6s %10s\n' '' ms '(fastest, slowest)' share of goal 'predicted'

# One JSON line on standard input to the table and to the file.
line() {
    tee -a "$OUT" | sed -E 's/^\{"name": "([^"]*)", "milliseconds": ([^,]*), "spread": \[([^,]*), ([^]]*)\], "share": ([^,]*), "of": "([^"]*)", "goal": ([^,]*), "predicted_milliseconds": ([^}]*)\}$/\1|\2|\3|\4|\5|\6|\7|\8/' |
        while IFS='|' read -r what ms low high share of goal predicted; do
            printf '%-52s %10.3f %22s %9.3f %-12s %6s %10.3f\n' "$what" "$ms" "($(printf '%.3f, %.3f' "$low" "$high"))" "$share" "$of" "$([ "$goal" = 0 ] || echo "$goal")" "$predicted"
        done
}
# field NAME FILE: of a JSON line.
field() { grep -oE "\"$1\": (\[[^]]*\]|[^,}]*)" "$2" | head -1 | sed 's/^[^:]*: //'; }

shape=(--set train.dtype=bf16 --set train.forward=bf16)
if [ -n "$SMALL" ]; then
    size=(--source 16 --target 8 --steps 2 --warmup 1) product=(--matmul-size 64)
    rows() { echo --set data.batch_rows=2; }
    steps=("toy toy 2 0.50") twins=("toy,toy-switch 4 2 1.15")
else
    size=(--source 512 --target 128 --steps 9 --warmup 3) product=(--matmul-size 8192)
    rows() { echo --set data.batch_rows=102 --set data.micro_batch_rows="$1"; }
    # Model, its file, rows of a micro-batch that 80 GB hold, goal; 102 rows of 640 are 65,280 tokens.
    steps=("T5-base t5-base 102 0.50" "T5-large t5-large 34 0.56" "T5-XL t5-xl 17 0.62") twins=("switch-base 16 102 1.15" "switch-base 128 34 1.7")
fi

operations() {
    "$OPS_BENCH" --device cuda "$rates" ${SMALL:+small} > "$scratch/operations" 2> "$scratch/log" || tail -1 "$scratch/log"
    line < "$scratch/operations"
}

steps() {
    local entry model file micro goal
    for entry in "${steps[@]}"; do
        read -r model file micro goal <<< "$entry"
        local config=("configs/model/$file.toml" "${shape[@]}" "${size[@]}")
        # shellcheck disable=SC2046
        if ! "$FLANMOE" bench "${config[@]}" $(rows "$micro") "${product[@]}" --device cuda --json > "$scratch/step" 2> "$scratch/log"; then
            echo "$model: $(tail -1 "$scratch/log")"
            continue
        fi
        # shellcheck disable=SC2046
        "$FLANMOE" bench "${config[@]}" $(rows "$micro") --predict "$rates" --json > "$scratch/predicted"
        cat "$scratch/step" "$scratch/predicted" >> "$OUT"
        printf '{"name": "%s, a step", "milliseconds": %s, "spread": %s, "share": %s, "of": "P", "goal": %s, "predicted_milliseconds": %s}\n' "$model" "$(field milliseconds "$scratch/step")" \
            "$(field spread "$scratch/step")" "$(field share_of_matmul "$scratch/step")" "$goal" "$(field milliseconds "$scratch/predicted")" | line
        parts_beside "$scratch/step" "$scratch/predicted"
    done
}

# Every part of a step, measured and predicted.
parts() { grep -oE '"parts": \{[^}]*' "$1" | head -1 | sed 's/"parts": {//' | tr ',' '\n' | sed -E 's/^ *"([^"]*)": /\1|/' | sort; }
parts_beside() {
    join -t '|' -a 1 -a 2 -e - -o 0,1.2,2.2 <(parts "$1") <(parts "$2") | sort -t '|' -k 3 -rn | while IFS='|' read -r part measured predicted; do
        printf '    %-48s %10s %60s %10s\n' "$part" "$measured" '' "$predicted"
    done
}

twins() {
    local entry file experts micro goal part
    for entry in "${twins[@]}"; do
        read -r file experts micro goal <<< "$entry"
        local files=()
        for part in ${file//,/ }; do files+=("configs/model/$part.toml"); done
        local config=("${files[@]}" --set "moe.experts=$experts" "${shape[@]}" "${size[@]}" --twin)
        # shellcheck disable=SC2046
        if ! "$FLANMOE" bench "${config[@]}" $(rows "$micro") --device cuda --json > "$scratch/twin" 2> "$scratch/log"; then
            echo "$file, $experts experts: $(tail -1 "$scratch/log")"
            continue
        fi
        # shellcheck disable=SC2046
        "$FLANMOE" bench "${config[@]}" $(rows "$micro") --predict "$rates" --json > "$scratch/predicted"
        cat "$scratch/twin" "$scratch/predicted" >> "$OUT"
        local sparse dense
        sparse=$(field sparse_milliseconds "$scratch/twin") dense=$(field dense_milliseconds "$scratch/twin")
        printf '{"name": "%s, %s experts, over its dense twin", "milliseconds": %s, "spread": %s, "share": %s, "of": "dense step", "goal": %s, "predicted_milliseconds": %s}\n' "$file" "$experts" "$sparse" \
            "$(field sparse_spread "$scratch/twin")" "$(awk "BEGIN { print $sparse / $dense }")" "$goal" "$(field milliseconds "$scratch/predicted")" | line
    done
}

for part; do
    case $part in
        operations | steps | twins) "$part" ;;
        *)
            echo "$part: unknown part; there are operations, steps, twins"
            exit 64
            ;;
    esac
done
