// Bump allocator for activations and temporaries.
//
// A step allocates forwards only; reset() forgets everything at once, a Scope forgets what was allocated inside it. Chunks are kept, so that
// from the second step on nothing is asked of the operating system. Memory is not zeroed.
#pragma once

#include "core/tensor.hpp"

#include <cstddef>
#include <vector>

namespace flanmoe {

class Arena {
public:
    Arena() = default;
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena();

    /// Uninitialised compact tensor, aligned to 64 bytes, valid until reset() or the end of the enclosing Scope.
    Tensor allocate(DType dtype, Shape shape) { return Tensor(allocate_bytes(shape.elements() * size_of(dtype)), dtype, shape); }
    /// The same, filled with zero bytes.
    Tensor zeros(DType dtype, Shape shape);
    void* allocate_bytes(int64_t bytes);
    void reset() { chunk_ = 0, used_ = 0, live_ = 0; }
    int64_t peak_bytes() const { return peak_; }  ///< most bytes in use at once since construction

    /// Frees, when it ends, what was allocated since it began.
    class Scope {
    public:
        explicit Scope(Arena& arena) : arena_(arena), chunk_(arena.chunk_), used_(arena.used_), live_(arena.live_) {}
        Scope(const Scope&) = delete;
        ~Scope() { arena_.chunk_ = chunk_, arena_.used_ = used_, arena_.live_ = live_; }

    private:
        Arena& arena_;
        size_t chunk_;
        int64_t used_, live_;
    };

private:
    struct Chunk {
        char* data;
        int64_t bytes;
    };
    std::vector<Chunk> chunks_;
    size_t chunk_ = 0;   // current chunk
    int64_t used_ = 0;   // bytes used in it
    int64_t live_ = 0, peak_ = 0;
};

}  // namespace flanmoe
