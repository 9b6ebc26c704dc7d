// What an operation runs on: device, memory for temporaries, timing. Passed to every operation; there is no global state.
#pragma once

#include "core/arena.hpp"
#include "core/kinds.hpp"

#include <chrono>
#include <string>
#include <vector>

namespace flanmoe {

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
    Engine* engine;
    Arena arena;                 ///< activations and temporaries, in the engine's memory
    PartTimer* timer = nullptr;  ///< set by `bench`; null costs nothing
    double flops = 0;            ///< floating-point operations of matrix products so far (2 m n k each), as matmul counts them

    explicit Context(Device device = Device::cpu, Engine& engine = host_engine()) : device(device), engine(&engine), arena(engine) {}

    Tensor allocate(DType dtype, Shape shape) { return arena.allocate(dtype, shape); }
    Tensor zeros(DType dtype, Shape shape) { return arena.zeros(dtype, shape); }
    /// A copy of host values in the context's memory.
    template <class T>
    Tensor upload(const std::vector<T>& values, Shape shape) {
        const Tensor t = allocate(dtype_of<T>, shape);
        require(static_cast<int64_t>(values.size()) == t.elements(), "as many values as the tensor has elements");
        engine->upload(t.data, values.data(), t.bytes());
        return t;
    }
    /// A compact tensor's elements on the host; waits for the work before.
    template <class T>
    std::vector<T> download(const Tensor& tensor) const {
        require(tensor.dtype == dtype_of<T> && tensor.compact(), "a compact tensor of the element type that is asked for");
        std::vector<T> values(static_cast<size_t>(tensor.elements()));
        engine->download(values.data(), tensor.data, tensor.bytes());
        return values;
    }

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
