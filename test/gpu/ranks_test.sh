# Two and four ranks that share one GPU (FLANMOE_CUDA), their tensors staged through host memory, beside one rank on it. Needs mpirun (openmpi-bin).
GPU=${FLANMOE_CUDA:-$FLANMOE}
command -v mpirun > /dev/null || { fault 'there is no mpirun; install Open MPI (Debian: openmpi-bin)'; return; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
tiny_world
program=("$GPU" train span.toml --device cuda --set train.steps=8 --set eval.every=0)
"${program[@]}" --run alone > alone.log 2>&1 < /dev/null || fault 'one rank' alone.log
ranks() { # NAME RANKS options...
    local name=$1 n=$2
    shift 2
    timeout 300 mpirun -q --oversubscribe -n "$n" "${program[@]}" --run "$name" "$@" > "$name.log" 2>&1 < /dev/null || fault "$n ranks ($name): exit code $?" "$name.log"
    grep -q 'over MPI, staged through host memory' "$name.log" || fault "$name: not over MPI" "$name.log"
    close alone "$name" 1e-4
}
for axis in data expert tensor; do ranks "two-$axis" 2 --set parallel.$axis=2; done
ranks four-dense 4 --set parallel.data=2 --set parallel.tensor=2
ranks four-experts 4 --set parallel.data=2 --set parallel.expert=2
