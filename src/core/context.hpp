// What an operation runs on: device, memory for temporaries, timing. Passed to every operation; there is no global state.
#pragma once

#include "core/activity.hpp"
#include "core/arena.hpp"
#include "core/kinds.hpp"

#include <exception>
#include <string>
#include <vector>

namespace flanmoe {

/// Time of the device by part of the step. A part is a name given by Context::part; parts do not nest.
class PartTimer {
public:
    struct Entry {
        std::string name;
        double seconds = 0;
        int64_t calls = 0;
    };
    /// Of work that the engine was given between two marks.
    void add(const char* name, int64_t first, int64_t last) { pending_.push_back({name, first, last}); }
    /// Adds up what was measured since the last call and takes the engine's marks back; the work must be done.
    void collect(Engine& engine);
    const std::vector<Entry>& entries() const { return entries_; }

private:
    struct Pending {
        const char* name;
        int64_t first, last;
    };
    std::vector<Entry> entries_;
    std::vector<Pending> pending_;
};

struct Context {
    Device device = Device::cpu;
    Engine* engine;
    Arena arena;                 ///< activations and temporaries, in the engine's memory
    PartTimer* timer = nullptr;  ///< set by `bench`; null costs nothing
    Activity* activity = nullptr;  ///< of this rank, which parts note themselves in; set by the trainer
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

    /// The work queued until it is destroyed has a name, which the rank's activity says meanwhile, and its time is measured if there is a timer.
    class Part {
    public:
        Part(Context& context, const char* name, int layer) : context_(context), name_(name) {
            context_.engine->enter_part(name, layer);
            if (Activity* activity = context_.activity) before_ = activity->part.exchange(name), activity->layer = layer;
            if (context_.timer) start_ = context_.engine->mark();
        }
        Part(const Part&) = delete;
        ~Part() noexcept(false) {
            context_.engine->leave_part();
            if (Activity* activity = context_.activity) activity->part = before_, activity->layer = -1;
            // An error on its way is the one to tell: what a mark would say of the same device could not leave a destructor.
            if (context_.timer && std::uncaught_exceptions() == errors_) context_.timer->add(name_, start_, context_.engine->mark());
        }

    private:
        Context& context_;
        const char* name_;
        const char* before_ = nullptr;  // what the activity said
        int64_t start_ = 0;
        int errors_ = std::uncaught_exceptions();
    };
    /// `layer`: the global number of the layer it belongs to; -1 for none.
    Part part(const char* name, int layer = -1) { return Part(*this, name, layer); }
};

}  // namespace flanmoe
