# An optimizer that ranks share (parallel.shard_optimizer) under mpirun: the files of a run that is not sharded, bit by bit; and a run may begin and end sharding.
tiny_world
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# ranks CODE N RUN options...: as `train`, on N ranks, and the exit code it must have.
ranks() {
    local code=$1 n=$2 run=$3
    shift 3
    timeout 150 mpirun -q --oversubscribe -n "$n" "$FLANMOE" train span.toml --run "$run" --set parallel.data=0 --set parallel.check_every=3 --set train.save_every=6 --set train.steps=12 "$@" \
        > "$run.log" 2>&1 < /dev/null
    local status=$?
    [ $status = "$code" ] || fault "$run: exit code $status instead of $code" "$run.log"
}
same_files() {
    local file
    for file in model.safetensors training/optimizer.safetensors; do
        cmp -s "$1/checkpoints/step-00000012/$file" "$2/checkpoints/step-00000012/$file" || fault "$file of $1 and $2 differ"
    done
}

sharded=(--set parallel.shard_optimizer=true)
narrow=(--set train.dtype=bf16 --set train.forward=bf16)
ranks 0 3 whole "${narrow[@]}"
ranks 0 3 sharded "${narrow[@]}" "${sharded[@]}"
same_files whole sharded
ranks 75 3 changing "${narrow[@]}" "${sharded[@]}" --max-steps 6
ranks 0 3 changing "${narrow[@]}"
same_files whole changing
ranks 0 4 mesh --set parallel.expert=2
ranks 0 4 mesh-sharded --set parallel.expert=2 "${sharded[@]}"
same_files mesh mesh-sharded
