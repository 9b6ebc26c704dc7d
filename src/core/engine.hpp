// What a device gives a context: memory, copies to and from the host, and an order of work.
//
// The host's engine is malloc and memcpy. A GPU's lies behind the same interface (cuda/engine.hpp): its operations are queued in one order, so memory that
// one operation no longer needs may be given to the next without waiting.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

namespace flanmoe {

class Engine {
public:
    virtual ~Engine() = default;
    /// At least so many bytes, aligned to 64; null if there are none left.
    virtual void* allocate(int64_t bytes) = 0;
    virtual void release(void* memory) = 0;
    virtual void zero(void* memory, int64_t bytes) = 0;
    virtual void upload(void* to, const void* host, int64_t bytes) = 0;      ///< `host` may change as soon as the call returns
    virtual void download(void* host, const void* from, int64_t bytes) = 0;  ///< waits for the work before it
    /// Inside the device: `rows` pieces of `bytes`, which lie so many bytes apart.
    virtual void copy_rows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t bytes, int64_t rows) = 0;
    void copy(void* to, const void* from, int64_t bytes) { copy_rows(to, bytes, from, bytes, bytes, 1); }
    virtual void synchronize() = 0;
    /// Bytes that can still be allocated; -1 if nobody says.
    virtual int64_t available_bytes() const { return -1; }
    /// True if the host may use the memory as its own.
    virtual bool on_host() const { return false; }
    /// True if every tensor shall be an allocation of its own, freed when its scope ends: the simulator, where a memory checker then sees each one's borders.
    virtual bool separate_allocations() const { return false; }
};

/// Owned memory of an engine, zeroed.
class Buffer {
public:
    /// Empty if the engine has not so much.
    Buffer(Engine& engine, int64_t bytes) : engine_(&engine), data_(engine.allocate(bytes)) {
        if (data_) engine.zero(data_, bytes);
    }
    Buffer(Buffer&& other) noexcept : engine_(other.engine_), data_(std::exchange(other.data_, nullptr)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(engine_, other.engine_), std::swap(data_, other.data_);
        return *this;
    }
    ~Buffer() {
        if (data_) engine_->release(data_);
    }
    void* data() const { return data_; }

private:
    Engine* engine_;
    void* data_;
};

/// Main memory; work is done when a call returns.
std::unique_ptr<Engine> make_host_engine();
/// One for the whole process, for contexts that are given none; it has no state.
Engine& host_engine();

}  // namespace flanmoe
