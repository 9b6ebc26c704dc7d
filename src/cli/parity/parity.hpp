// Recorded numerical cases: a folder with case.json and, for most kinds, safetensors files; each holds one computation with what an independent
// implementation computed. `flanmoe parity` computes it again with the code that training and evaluation use, and compares.
//
// One file a kind of case: it turns a ParityCase into what it computed. Everything else (reading, tolerances, comparison, output) is here once.
// To add a kind: write `Computed compute_NAME(const ParityCase&)` in a file of its own and add its line to the table in judge.cpp.
#pragma once

#include "checkpoint/safetensors.hpp"
#include "comm/mesh.hpp"
#include "core/context.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace flanmoe::cli {

struct ParityCase {
    std::filesystem::path folder;
    nlohmann::json json;  ///< case.json
    Device device = Device::cpu;
    DType dtype = DType::f32;  ///< precision of the run
    const Mesh* mesh = nullptr;  ///< ranks that divide the rows of a training case among them; null: alone

    std::optional<SafetensorsFile> inputs, expected;  ///< of the kinds with tensors

    const std::string& kind() const { return json.at("kind").get_ref<const std::string&>(); }
    bool has_input(const std::string& name) const { return inputs && inputs->find(name); }
    HostTensor input(const std::string& name, DType type) const { return inputs->load(inputs->at(name), type); }
    /// Ends the case as malformed; `what` is a clause about case.json.
    [[noreturn]] void malformed(const std::string& what) const { fail(Exit::bad_data, "{}/case.json: {}", folder.string(), what); }
};

/// What was computed: tensors under the names of expected.safetensors (f32, bf16 or f64), or recomputed fields of case.json.
struct Computed {
    std::map<std::string, HostTensor> tensors;
    nlohmann::json fields;
};

Computed compute_router(const ParityCase& given);
Computed compute_optimizer(const ParityCase& given);
Computed compute_buckets(const ParityCase& given);
Computed compute_spans(const ParityCase& given);
Computed compute_tokenizer(const ParityCase& given);
Computed compute_model(const ParityCase& given);
Computed compute_training(const ParityCase& given);
Computed compute_generation(const ParityCase& given);
Computed compute_metrics(const ParityCase& given);

enum class Verdict : uint8_t { ok, skipped, out_of_tolerance };
struct Judgement {
    Verdict verdict = Verdict::ok;
    std::string details;  ///< largest error of each class against its tolerance, the worst entry, everything that is wrong
    Device device = Device::cpu;  ///< that computed: the CPU for kinds without a device side
};
/// Computes one case and compares. Writes what was computed to `output` unless that is empty. A malformed case is an Error with Exit::bad_data. On a mesh of
/// several ranks, all data ranks, every one computes; kinds other than training compute the same on each. There what is wrong with files is a SharedError; any other error
/// is one rank's alone, in the middle of the computation.
Judgement judge(const std::filesystem::path& folder, Device device, DType dtype, const std::filesystem::path& output = {}, const Mesh* mesh = nullptr);

/// Compares tensors with expected.safetensors by error class; `tolerances` maps a class to its tolerance.
Judgement compare_tensors(const ParityCase& given, const Computed& computed, const nlohmann::json& tolerances);
/// Compares recomputed fields with case.json: numbers within an absolute tolerance, everything else exactly.
Judgement compare_fields(const ParityCase& given, const Computed& computed, double tolerance);

}  // namespace flanmoe::cli
