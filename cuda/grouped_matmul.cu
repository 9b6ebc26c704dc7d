// Products grouped over experts: one launch for all of them, whatever their sizes.
//
// A persistent grid takes tiles from a schedule that the blocks read off the offsets on the device (grouped_schedule.cuh): experts without rows cost nothing,
// crowded ones are spread over all blocks. A tile is bf16 on tensor cores, 128 x 128 and cheaper for groups with fewer rows (grouped_tensor_tile.cuh), on Hopper 128 x
// 256 with its own instructions (grouped_hopper_tile.cuh), or f32 with multiply-adds (grouped_float_tile.cuh). The order in which
// products are added depends on the inner size alone, so results do not depend on the grid; tensor cores of other generations, and the two kinds of tile, round sums
// of a few products differently inside.
//
// Work of one product of R rows, [R, k] x [k, n]: 2 R k n FLOPs; bytes 2 (R k n / 128 x 2) from the second-level cache, 2 (R k + R n + E k n) from memory. Example:
// 64 Ki rows, 768 x 2048, 16 experts: 206 GFLOP and 0.42 GB; 0.33 ms at 620 TFLOP/s (what mma.sync gives of an H100's 989), 0.16 ms of memory. With 128
// experts of 64 rows each (8 Ki rows) 26 GFLOP and 0.45 GB, 0.17 ms: bound by the matrices' bytes. Not yet measured on hardware.
// Registers: bf16 at most 255 (no local memory), f32 153; shared memory 64 KB and 8.5 KB and a few bytes an expert; two and three blocks a multiprocessor. Hopper's tile has
// 192 KB and 256 threads, one block a multiprocessor, and reaches more than mma.sync's rate.
// The FLOPs that Context counts are those of all rows that the buffers have, since the host does not know how many are in use.
#include "ops/matmul.hpp"

#include "launch.hpp"

#include "grouped_float_tile.cuh"
#include "grouped_hopper_tile.cuh"
#include "grouped_schedule.cuh"
#include "grouped_tensor_tile.cuh"

namespace flanmoe::cuda {

namespace {

template <class Tile, class Schedule>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks) grouped_kernel(const typename Schedule::Work work) {
    Shared shared;
    const Tile tile(shared);
    Schedule schedule(work, shared);
    typename Schedule::Tile next;
    while (schedule.next(next)) tile.multiply(next);
}

template <class Tile, class Schedule>
void launch_grouped(Context& context, const char* name, const typename Schedule::Work& work, int64_t most_tiles) {
    const int64_t resident = int64_t{Tile::blocks} * engine_of(context).properties().multiProcessorCount;
    launch(context, name, grouped_kernel<Tile, Schedule>, static_cast<unsigned>(std::min(most_tiles, resident)), Tile::threads, Tile::bytes + Schedule::bytes(work.experts), work);
}

/// All rows begin at multiples of 16 bytes, those of further experts too.
bool all_aligned(const Tensor& tensor, int64_t stride = 0) { return has_aligned_rows(tensor) && stride * size_of(tensor.dtype) % 16 == 0; }

/// Whether Hopper's own tile is the one to take: it exists in the code for sm_90a alone, and half of it idles where there are few columns.
bool on_hopper(Context& context, const Tensor& out) { return engine_of(context).properties().major == 9 && out.cols() > 128; }

template <class Out, template <class, bool, bool, bool> class TileOf, bool b_transposed, bool aligned>
void multiply_rows(Context& context, const ops::GroupedMatmulArgs& args) {
    using Tile = TileOf<Out, true, b_transposed, aligned>;
    using T = typename Tile::T;
    GroupedWork<T, Out> work{};
    work.a = args.a.as<T>(), work.b = args.b.as<T>(), work.out = args.out.as<Out>();
    work.a_ld = args.a.ld, work.b_ld = args.b.ld, work.out_ld = args.out.ld, work.stride = args.b_stride;
    work.offsets = args.offsets.as<int32_t>(), work.experts = static_cast<int32_t>(args.offsets.elements() - 1);
    work.cols = args.out.cols(), work.inner = args.a.cols(), work.b_transposed = b_transposed;
    const int64_t most = (args.a.rows() / Tile::rows + work.experts) * ((work.cols + Tile::cols - 1) / Tile::cols);
    launch_grouped<Tile, RowSchedule<T, Out, Tile::rows, Tile::cols>>(context, "grouped matmul", work, most);
}

template <class Out, template <class, bool, bool, bool> class TileOf, bool aligned>
void multiply_weights(Context& context, const ops::GroupedMatmulWeightArgs& args) {
    using Tile = TileOf<Out, false, false, aligned>;
    using T = typename Tile::T;
    Arena::Scope scope(context.arena);
    GroupedWork<T, Out> work{};
    work.a = args.a.as<T>(), work.b = args.b.as<T>(), work.out = args.out.as<Out>();
    work.a_ld = args.a.ld, work.b_ld = args.b.ld, work.out_ld = args.out.ld, work.stride = args.out_stride;
    work.offsets = args.offsets.as<int32_t>(), work.experts = static_cast<int32_t>(args.offsets.elements() - 1);
    work.rows = args.out.rows(), work.cols = args.out.cols(), work.accumulate = args.accumulate;
    work.counter = context.zeros(DType::i32, {1}).as<int32_t>();
    const int64_t most = ((work.rows + Tile::rows - 1) / Tile::rows) * ((work.cols + Tile::cols - 1) / Tile::cols) * work.experts;
    launch_grouped<Tile, WeightSchedule<T, Out, Tile::rows, Tile::cols>>(context, "grouped matmul of weights", work, most);
}

template <class Out, template <class, bool, bool, bool> class TileOf, bool aligned>
void multiply_rows(Context& context, const ops::GroupedMatmulArgs& args) {
    args.transpose_b ? multiply_rows<Out, TileOf, true, aligned>(context, args) : multiply_rows<Out, TileOf, false, aligned>(context, args);
}

template <class Out>
void multiply_rows(Context& context, const ops::GroupedMatmulArgs& args) {
    const bool aligned = all_aligned(args.a) && all_aligned(args.b, args.b_stride) && all_aligned(args.out);
    if (aligned && on_hopper(context, args.out)) return multiply_rows<Out, HopperTile, true>(context, args);
    aligned ? multiply_rows<Out, TensorTile, true>(context, args) : multiply_rows<Out, TensorTile, false>(context, args);
}
template <class Out>
void multiply_weights(Context& context, const ops::GroupedMatmulWeightArgs& args) {
    const bool aligned = all_aligned(args.a) && all_aligned(args.b) && all_aligned(args.out, args.out_stride);
    if (aligned && on_hopper(context, args.out)) return multiply_weights<Out, HopperTile, true>(context, args);
    aligned ? multiply_weights<Out, TensorTile, true>(context, args) : multiply_weights<Out, TensorTile, false>(context, args);
}

double flops_of(const Tensor& a, const Tensor& b, int64_t k) { return 2.0 * static_cast<double>(a.rows()) * static_cast<double>(b.cols()) * static_cast<double>(k); }

}  // namespace

void grouped_matmul(Context& context, const ops::GroupedMatmulArgs& args) {
    context.flops += flops_of(args.a, args.out, args.a.cols());
    if (args.a.dtype == DType::f32) multiply_rows<float, FloatTile, false>(context, args);
    else if (args.out.dtype == DType::f32) multiply_rows<float>(context, args);
    else multiply_rows<bf16>(context, args);
}

void grouped_matmul_weight(Context& context, const ops::GroupedMatmulWeightArgs& args) {
    context.flops += flops_of(args.a, args.b, args.a.cols());
    if (args.a.dtype == DType::f32) multiply_weights<float, FloatTile, false>(context, args);
    else if (args.out.dtype == DType::f32) multiply_weights<float>(context, args);
    else multiply_weights<bf16>(context, args);
}

}  // namespace flanmoe::cuda
