#include "core/arena.hpp"

#include <algorithm>

namespace flanmoe {

namespace {
constexpr int64_t alignment = 64;
constexpr int64_t smallest_chunk = int64_t{32} << 20;
}  // namespace

Arena::~Arena() {
    for (Chunk& chunk : chunks_) engine_.release(chunk.data);
}

void Arena::add_chunk(int64_t bytes) {
    void* data = engine_.allocate(bytes);
    if (!data) fail(Exit::out_of_memory, "out of memory: {} MB more are needed beside {} MB of activations; take fewer or shorter rows at a time (training: data.micro_batch_rows; eval and generate: --batch)",
                    (bytes + (1 << 20) - 1) >> 20, live_ >> 20);
    chunks_.push_back({static_cast<char*>(data), bytes});
}

void Arena::rewind(size_t chunk, int64_t used, int64_t live) {
    chunk_ = chunk, used_ = used, live_ = live;
    if (!engine_.separate_allocations()) return;
    for (size_t i = chunk; i < chunks_.size(); ++i) engine_.release(chunks_[i].data);
    chunks_.resize(chunk);
}

void Arena::settle() {
    reset();
    if (engine_.separate_allocations() || chunks_.size() < 2) return;
    for (const Chunk& chunk : chunks_) engine_.release(chunk.data);
    chunks_.clear();
    add_chunk(peak_);
}

void* Arena::allocate_bytes(int64_t bytes) {
    require(bytes >= 0, "a non-negative number of bytes");
    const int64_t exact = std::max<int64_t>(1, bytes);
    bytes = (exact + alignment - 1) / alignment * alignment;
    live_ += bytes;
    peak_ = std::max(peak_, live_);
    if (engine_.separate_allocations()) {
        add_chunk(exact);
        chunk_ = chunks_.size();
        return chunks_.back().data;
    }
    while (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].bytes) ++chunk_, used_ = 0;
    if (chunk_ == chunks_.size()) {
        add_chunk(std::max(bytes, smallest_chunk));
        used_ = 0;
    }
    void* result = chunks_[chunk_].data + used_;
    used_ += bytes;
    return result;
}

Tensor Arena::zeros(DType dtype, Shape shape) {
    Tensor t = allocate(dtype, shape);
    engine_.zero(t.data, t.bytes());
    return t;
}

}  // namespace flanmoe
