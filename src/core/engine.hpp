// What a device gives a context: memory, copies to and from the host, and an order of work.
//
// The host's engine is malloc and memcpy. A GPU's lies behind the same interface (cuda/engine.hpp): its operations are queued in one order, so memory that
// one operation no longer needs may be given to the next without waiting.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

namespace flanmoe {

class Lane;  // core/lane.hpp

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

    /// Memory of the host that copies reach while the host goes on; null if there is none left. upload_later() and download_later() return at once, and
    /// what they were given must stay as it is until synchronize() returns.
    virtual void* allocate_pinned(int64_t bytes) = 0;
    virtual void release_pinned(void* memory) = 0;
    virtual void upload_later(void* to, const void* pinned, int64_t bytes) = 0;
    virtual void download_later(void* pinned, const void* from, int64_t bytes) = 0;

    /// Work that was queued once and can be queued again as one piece.
    class Recording {
    public:
        virtual ~Recording() = default;
    };
    virtual bool records() const { return false; }
    /// Queues all that `work` queues as one piece, through a recording that the first call makes and later ones bring up to date. `work` may neither wait
    /// nor allocate from the engine. Where nothing is recorded it is simply done.
    virtual void run_recorded(std::unique_ptr<Recording>& recording, const std::function<void()>& work);

    /// Work beside this engine's; it must not outlive the engine.
    virtual std::unique_ptr<Lane> make_lane();

    /// A point in the order of work, and the time between two of them once synchronize() has returned. forget_marks() makes them invalid and takes them back.
    virtual int64_t mark();
    virtual double seconds_between(int64_t first, int64_t second) const;
    virtual void forget_marks() {}

    /// Where in a step the host is queueing work, for errors and profilers: the step's number, the part and the layer (-1: none).
    virtual void begin_step(int64_t) {}
    virtual void enter_part(const char*, int) {}
    virtual void leave_part() {}

    /// Bytes that can still be allocated; -1 if nobody says.
    virtual int64_t available_bytes() const { return -1; }
    /// Bytes of a device's own memory, whoever holds them; -1 where it has none.
    virtual int64_t device_bytes() const { return -1; }
    /// True if the host may use the memory as its own.
    virtual bool on_host() const { return false; }
    /// True if every tensor shall be an allocation of its own, freed when its scope ends: the simulator, where a memory checker then sees each one's borders.
    virtual bool separate_allocations() const { return false; }
    /// Chooses, where there is a choice: recordings need the same addresses again. No arena of the engine may be in use.
    virtual void set_separate_allocations(bool) {}
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

/// Owned pinned memory of an engine.
class PinnedBuffer {
public:
    /// Empty if there is not so much.
    PinnedBuffer(Engine& engine, int64_t bytes) : engine_(&engine), data_(engine.allocate_pinned(bytes)) {}
    PinnedBuffer(PinnedBuffer&& other) noexcept : engine_(other.engine_), data_(std::exchange(other.data_, nullptr)) {}
    PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
        std::swap(engine_, other.engine_), std::swap(data_, other.data_);
        return *this;
    }
    ~PinnedBuffer() {
        if (data_) engine_->release_pinned(data_);
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
