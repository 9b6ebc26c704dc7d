// The host's side of attention: arguments as the kernels want them, and the bias table spread over distances (a kernel of a few microseconds, so that no
// block of attention looks for buckets).
#include "attention_tile.cuh"

#include <algorithm>

namespace flanmoe::cuda {

namespace {

/// Tables whose buckets end later would not fit beside the tiles in shared memory (the backward sums by distance). T5's end at 128.
constexpr int most_distances = 1024;

template <class B>
__global__ void attention_bias(const B* table, int64_t ld, const __grid_constant__ BucketBegins begins, int left, int right, float* bias) {
    const int head = static_cast<int>(blockIdx.x), distances = left + 1 + right;
    for (int x = static_cast<int>(threadIdx.x); x < distances; x += static_cast<int>(blockDim.x))
        bias[int64_t{head} * distances + x] = to_float(table[begins.of(x - left) * ld + head]);
}

int to_int(int64_t value) {
    require(value < INT_MAX / 4, "attention over fewer than 2^29 positions; split the rows");
    return static_cast<int>(value);
}

}  // namespace

void refuse_width(int64_t size) {
    fail(Exit::usage, "attention on a CUDA device takes heads of at most 128 elements, not of {}; use --device cpu or narrower heads", size);
}

bool rows_are_aligned(std::initializer_list<Tensor> tensors, int64_t size) {
    return std::ranges::all_of(tensors, [&](const Tensor& t) { return is_aligned(t.data) && t.ld * size_of(t.dtype) % 16 == 0 && size * size_of(t.dtype) % 16 == 0; });
}

AttentionShape attention_shape(const ops::AttentionArgs& args) {
    AttentionShape s{};
    s.batch = to_int(args.q.shape[0]), s.heads = to_int(args.heads), s.kv_heads = to_int(args.kv_heads);
    s.queries = to_int(args.q.shape[1]), s.keys = to_int(args.k.shape[1]), s.size = to_int(args.q.cols() / args.heads);
    s.scale = static_cast<float>(args.scale);
    s.causal = args.causal, s.aligned = rows_are_aligned({args.q, args.k, args.v, args.out}, s.size);
    s.query_offset = to_int(args.query_offset), s.window = args.window == 0 ? INT_MAX : static_cast<int>(std::min<int64_t>(args.window, INT_MAX));
    const auto integers = [](const Tensor& t) { return t ? t.as<int32_t>() : nullptr; };
    s.query_segments = integers(args.query_segments), s.key_segments = integers(args.key_segments), s.prefix_ends = integers(args.prefix_ends), s.key_rows = integers(args.key_rows);
    s.dropout = args.dropout, s.dropout_heads = args.dropout_heads ? to_int(args.dropout_heads) : s.heads;
    return s;
}

BucketBegins bucket_begins(const ops::BucketRule& rule) {
    BucketBegins begins;
    const ops::BucketTable table(rule);
    begins.bidirectional = rule.bidirectional, begins.count = static_cast<int>(rule.bidirectional ? rule.count / 2 : rule.count);
    if (begins.count > BucketBegins::most) fail(Exit::usage, "attention on a CUDA device takes at most 512 buckets of relative positions a direction; choose fewer or use --device cpu");
    int distance = 0;
    for (int bucket = 0; bucket < begins.count; ++bucket) {
        while (table.of(-distance) < bucket) ++distance;
        begins.begin[bucket] = distance;
    }
    return begins;
}

void spread_bias(Context& context, const ops::AttentionArgs& args, const BucketBegins& begins, AttentionShape& shape) {
    shape.left = shape.right = 0;
    if (!args.bias_table) return;
    // Distances beyond those that occur need no entry.
    shape.left = std::max(0, std::min(begins.last(), shape.queries - 1 + shape.query_offset));
    if (begins.bidirectional) shape.right = std::max(0, std::min(begins.last(), shape.keys - 1 - shape.query_offset));
    if (std::max(shape.left, shape.right) > most_distances)
        fail(Exit::usage, "attention on a CUDA device takes position buckets that end within 1024 positions; set a smaller maximum distance or use --device cpu");
    const Tensor bias = context.allocate(DType::f32, {args.heads, shape.distances()});
    shape.bias = bias.as<float>();
    with_storage(args.bias_table.dtype, [&]<class B>() {
        launch(context, "attention_bias", attention_bias<B>, dim3(static_cast<unsigned>(args.heads)), dim3(128), 0, args.bias_table.as<B>(), args.bias_table.ld, begins,
               shape.left, shape.right, bias.as<float>());
    });
}

}  // namespace flanmoe::cuda
