// What a training step asks of a GPU, counted from the config kernel by kernel, and the time it should take at given rates.
//
// The counts are those of cuda/: every matrix product, every kernel of weight, and how often each reads and writes its tensors. Of routing it is assumed that
// every token gets its experts and that all experts get as many. A kernel takes the longer of its arithmetic and its memory traffic, and kernels follow one
// another. Where measured times differ, either the kernel or the count is wrong: that is what they are for.
#pragma once

#include "config/config.hpp"
#include "model/flops.hpp"
#include "model/transformer.hpp"

#include <string>
#include <vector>

namespace flanmoe {

/// What does a kernel's arithmetic.
enum class Unit : uint8_t {
    library,   ///< matrix products of cuBLASLt in bf16
    own,       ///< our kernels on tensor cores (mma.sync): attention, grouped products, output layer
    single,    ///< products in float
    none,      ///< bound by memory
};

struct KernelWork {
    std::string part;         ///< of the step, as the timers of the model call it
    std::string kernel;
    Unit unit = Unit::none;
    double flops = 0;         ///< of products, a multiply and an add being two
    double instructions = 0;  ///< beside them, of one thread each: exponentials (as eight), masks, dropout; counted where they weigh
    double bytes = 0;         ///< of memory, read and written
    double launches = 1;
};

/// One step of `passes` micro-batches of this shape.
std::vector<KernelWork> work_of_step(const Config& config, const Transformer& model, const SequenceShape& micro_batch, int64_t passes = 1);

struct DeviceRates {
    std::string name;
    double library = 0, own = 0, single = 0;  ///< FLOP/s of the units
    double instructions = 0;                  ///< of a thread, a second
    double bandwidth = 0;                     ///< bytes of memory a second, read and written
    double launch = 0;                        ///< seconds from one kernel to the next
    double of(Unit unit) const { return unit == Unit::library ? library : unit == Unit::own ? own : single; }
};

/// "a100", "h100" (SXM) or "h200": what such devices are known to sustain, not their peaks. Exit::usage for another name.
DeviceRates rates_of(const std::string& device);
double predicted_seconds(const KernelWork& work, const DeviceRates& rates);

struct PartPrediction {
    std::string part;
    double milliseconds = 0, flops = 0, bytes = 0, launches = 0;
};
struct StepPrediction {
    DeviceRates rates;
    double products = 0;                ///< FLOP/s of products in the compute type
    int64_t rows = 0, passes = 1, source = 0, target = 0;
    double milliseconds = 0;
    double model_flops = 0;             ///< forward x 3, as `bench` counts them
    std::vector<PartPrediction> parts;  ///< the longest first
    double share_of_products() const { return model_flops / (1e-3 * milliseconds) / products; }
};
/// Of the config's step on one device.
StepPrediction predict_step(const Config& config, const DeviceRates& rates, int64_t source = 0, int64_t target = 0);
std::string to_table(const StepPrediction& prediction);
std::string to_json(const StepPrediction& prediction);

}  // namespace flanmoe
