#include "core/arena.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace flanmoe {

namespace {
constexpr int64_t alignment = 64;
constexpr int64_t smallest_chunk = int64_t{32} << 20;
}  // namespace

Arena::~Arena() {
    for (Chunk& chunk : chunks_) std::free(chunk.data);
}

void* Arena::allocate_bytes(int64_t bytes) {
    require(bytes >= 0, "a non-negative number of bytes");
    bytes = std::max(alignment, (bytes + alignment - 1) / alignment * alignment);
    while (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].bytes) ++chunk_, used_ = 0;
    if (chunk_ == chunks_.size()) {
        const int64_t size = std::max(bytes, smallest_chunk);
        void* data = std::aligned_alloc(alignment, static_cast<size_t>(size));
        if (!data) fail(Exit::out_of_memory, "out of memory: {} MB more are needed for activations; reduce the micro-batch or the sequence length", size >> 20);
        chunks_.push_back({static_cast<char*>(data), size});
        used_ = 0;
    }
    void* result = chunks_[chunk_].data + used_;
    used_ += bytes;
    live_ += bytes;
    peak_ = std::max(peak_, live_);
    return result;
}

Tensor Arena::zeros(DType dtype, Shape shape) {
    Tensor t = allocate(dtype, shape);
    std::memset(t.data, 0, static_cast<size_t>(t.bytes()));
    return t;
}

}  // namespace flanmoe
