# Layouts under a real mpirun: on every layout of 1, 2, 4 and 8 ranks the gradients of every parameter, losses, routing and the gradient norm of one rank, for a dense, a sparse
# and a decoder-only model, in double and f32 (test/model/parallel_test.cpp compares). Needs mpirun (openmpi-bin).
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
tests=$(dirname "$FLANMOE")/flanmoe-test
for ranks in 1 2 4 8; do
    timeout 300 mpirun -q --oversubscribe -n $ranks "$tests" --no-colors=true -ts=model/parallel_mpi > layouts.log 2>&1 < /dev/null || fault "layouts of $ranks ranks" layouts.log
    [ "$(grep -c 'test cases: *1 | *1 passed' layouts.log)" = $ranks ] || fault "layouts of $ranks ranks: not every rank compared" layouts.log
done
