// What an operation runs on: device, memory for temporaries, timing. Passed to every operation; there is no global state.
#pragma once

#include "core/arena.hpp"

#include <chrono>
#include <string>
#include <vector>

namespace flanmoe {

enum class Device : uint8_t { cpu, cuda };

/// Wall time by part of the step. A part is a name given by Context::part; parts do not nest.
class PartTimer {
public:
    struct Entry {
        std::string name;
        double seconds = 0;
        int64_t calls = 0;
    };
    void add(const char* name, double seconds);
    const std::vector<Entry>& entries() const { return entries_; }
    void clear() { entries_.clear(); }

private:
    std::vector<Entry> entries_;
};

struct Context {
    Device device = Device::cpu;
    Arena arena;                 ///< activations and temporaries
    PartTimer* timer = nullptr;  ///< set by `bench`; null costs nothing
    double flops = 0;            ///< floating-point operations of matrix products so far (2 m n k each), as matmul counts them

    Tensor allocate(DType dtype, Shape shape) { return arena.allocate(dtype, shape); }
    Tensor zeros(DType dtype, Shape shape) { return arena.zeros(dtype, shape); }

    /// Measures the time until it is destroyed, if there is a timer.
    class Part {
    public:
        Part(PartTimer* timer, const char* name) : timer_(timer), name_(name) {
            if (timer_) start_ = std::chrono::steady_clock::now();
        }
        Part(const Part&) = delete;
        ~Part() {
            if (timer_) timer_->add(name_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
        }

    private:
        PartTimer* timer_;
        const char* name_;
        std::chrono::steady_clock::time_point start_;
    };
    Part part(const char* name) { return Part(timer, name); }
};

}  // namespace flanmoe
