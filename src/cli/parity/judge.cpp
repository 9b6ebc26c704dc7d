// From a case's folder to a judgement: reading, choosing the kind and the tolerances, computing, comparing, writing what was computed.
#include "cli/parity/parity.hpp"
#include "comm/agreement.hpp"
#include "core/file.hpp"

#include <array>
#include <functional>

namespace flanmoe::cli {

namespace {

struct Kind {
    const char* name;
    bool tensors;  ///< results are tensors, not fields of case.json
    bool on_device;
    Computed (*compute)(const ParityCase&);
};
constexpr std::array kinds = {
    Kind{"model", true, true, compute_model},        Kind{"training", true, true, compute_training}, Kind{"router", true, true, compute_router},
    Kind{"optimizer", true, true, compute_optimizer}, Kind{"buckets", false, false, compute_buckets},  Kind{"spans", false, false, compute_spans},
    Kind{"tokenizer", false, false, compute_tokenizer}, Kind{"generation", false, true, compute_generation}, Kind{"metrics", false, false, compute_metrics},
};

const Kind& kind_of(const ParityCase& given) {
    std::string known;
    for (const Kind& kind : kinds) {
        if (given.kind() == kind.name) return kind;
        known += (known.empty() ? "" : ", ") + std::string(kind.name);
    }
    given.malformed(fmt::format("kind is \"{}\"; known kinds are {}", given.kind(), known));
}

/// Tolerances of this run: an object by class, or one number; null if the case is not judged in this precision.
nlohmann::json tolerances_of(const ParityCase& given, const Kind& kind) {
    const nlohmann::json all = given.json.value("tolerance", nlohmann::json(kind.tensors ? nlohmann::json() : nlohmann::json(0)));
    if (all.is_number() && !kind.tensors) return all;
    if (!all.is_object()) given.malformed("\"tolerance\" is missing or is not an object by precision");
    return all.value(name_of(given.dtype), nlohmann::json());
}

ParityCase read_case(const std::filesystem::path& folder, Device device, DType dtype, const Mesh* mesh) {
    if (!std::filesystem::is_directory(folder)) fail(Exit::missing_input, "{} is not the folder of a case; give a folder that holds case.json", folder.string());
    ParityCase given;
    given.folder = folder, given.device = device, given.dtype = dtype, given.mesh = mesh;
    given.json = nlohmann::json::parse(read_file(folder / "case.json"));
    if (!kind_of(given).tensors) return given;
    given.inputs.emplace(folder / "inputs.safetensors");
    given.expected.emplace(folder / "expected.safetensors");
    return given;
}

// A file of the case that is missing or damaged, or a config that contradicts itself: to this command all of that is a malformed case.
void as_of_case(const std::filesystem::path& folder, const std::function<void()>& work) {
    try {
        work();
    } catch (const nlohmann::json::exception& error) {
        fail(Exit::bad_data, "{}/case.json: {}", folder.string(), error.what());
    } catch (const Error& error) {
        const bool of_the_case = error.code == Exit::bad_checkpoint || error.code == Exit::usage || (error.code == Exit::missing_input && std::filesystem::is_directory(folder));
        throw of_the_case ? Error(Exit::bad_data, error.what()) : error;
    }
}

}  // namespace

Judgement judge(const std::filesystem::path& folder, Device device, DType dtype, const std::filesystem::path& output, const Mesh* mesh) {
    Communicator& world = mesh ? mesh->world() : one_rank().world();
    const auto all_together = [&](const std::function<void()>& work) { together(world, [&] { as_of_case(folder, work); }); };
    ParityCase given;
    const Kind* kind = nullptr;
    nlohmann::json tolerances;
    all_together([&] {
        given = read_case(folder, device, dtype, mesh);
        kind = &kind_of(given);
        tolerances = tolerances_of(given, *kind);
    });
    const Device computes = kind->on_device ? device : Device::cpu;
    const Judgement skipped{Verdict::skipped, fmt::format("has no tolerance for {}", name_of(dtype)), computes};
    if (tolerances.is_null() && output.empty()) return skipped;
    Computed computed;
    as_of_case(folder, [&] { computed = kind->compute(given); });
    Judgement judgement = skipped;
    all_together([&] {
        if (!output.empty() && world.rank() == 0) {
            if (kind->tensors) save_all(output, computed.tensors);
            else write_file_atomically(output, computed.fields.dump(1) + "\n");
        }
        if (tolerances.is_null()) return;
        judgement = kind->tensors ? compare_tensors(given, computed, tolerances) : compare_fields(given, computed, tolerances.get<double>());
        judgement.device = computes;
    });
    return judgement;
}

}  // namespace flanmoe::cli
