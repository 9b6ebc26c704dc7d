# 200 steps of a small Switch model, dropout and jitter on, on the CPU and with --device cuda: losses within 1e-2 of each other all along, 1e-4 for the first 20.
# Not among the tests of every change: on the simulator it takes minutes. test/gpu/test.sh curve runs it; recorded results are in test/README.md.
CUDA=${FLANMOE_CUDA:-$(dirname "$FLANMOE")/flanmoe-sim}
[ -x "$CUDA" ] || { fault "$CUDA is not built"; return; }
tiny_world
long=(--set train.steps=200 --set eval.every=0 --set train.save_every=0)
ends 0 span.toml long-cpu "${long[@]}"
FLANMOE=$CUDA ends 0 span.toml long-cuda "${long[@]}" --device cuda
close long-cpu long-cuda 1e-2
echo "  largest relative difference of 200 losses: $(cat close.log)"
for run in cpu cuda; do
    mkdir -p first-$run
    grep '"kind":"train"' long-$run/metrics.jsonl | head -20 > first-$run/metrics.jsonl
done
close first-cpu first-cuda 1e-4
echo "  of the first 20: $(cat close.log)"
