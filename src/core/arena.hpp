// Bump allocator for activations and temporaries.
//
// A step allocates forwards only; reset() forgets everything at once, a Scope forgets what was allocated inside it. Chunks are kept, so that
// from the second step on nothing is asked of the engine. Memory is not zeroed. On an engine with separate allocations every tensor is a chunk of its
// own, of exactly its size, and is released when its scope ends.
#pragma once

#include "core/engine.hpp"
#include "core/tensor.hpp"

#include <cstddef>
#include <vector>

namespace flanmoe {

class Arena {
public:
    explicit Arena(Engine& engine = host_engine()) : engine_(engine) {}
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena();

    /// Uninitialised compact tensor, aligned to 64 bytes, valid until reset() or the end of the enclosing Scope.
    Tensor allocate(DType dtype, Shape shape) { return Tensor(allocate_bytes(shape.elements() * size_of(dtype)), dtype, shape); }
    /// The same, filled with zero bytes.
    Tensor zeros(DType dtype, Shape shape);
    void* allocate_bytes(int64_t bytes);
    void reset() { rewind(0, 0, 0); }
    /// Forgets everything, and keeps one chunk that holds the most that was in use at once. Then the same requests find room without the engine.
    void settle();
    int64_t peak_bytes() const { return peak_; }  ///< most bytes in use at once since construction

    /// Frees, when it ends, what was allocated since it began.
    class Scope {
    public:
        explicit Scope(Arena& arena) : arena_(arena), chunk_(arena.chunk_), used_(arena.used_), live_(arena.live_) {}
        Scope(const Scope&) = delete;
        ~Scope() { arena_.rewind(chunk_, used_, live_); }

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
    void add_chunk(int64_t bytes);
    void rewind(size_t chunk, int64_t used, int64_t live);

    Engine& engine_;
    std::vector<Chunk> chunks_;
    size_t chunk_ = 0;   // current chunk; of separate allocations, as many as live
    int64_t used_ = 0;   // bytes used in it
    int64_t live_ = 0, peak_ = 0;
};

}  // namespace flanmoe
