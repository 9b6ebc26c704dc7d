// flanmoe parity: recompute recorded numerical cases and report the largest errors.
#include "cli/commands.hpp"
#include "cli/parity/parity.hpp"
#include "comm/agreement.hpp"
#include "comm/world.hpp"
#include "ops/engine.hpp"

#include <CLI/CLI.hpp>

namespace flanmoe::cli {

namespace {

struct Options {
    std::vector<std::string> cases;
    std::string device = "cpu", dtype = "f32";
    std::string output;
};

// Ranks under a launcher divide the rows of training cases among them; rank 0 tells the result.
Exit run_rank(const Options& options, const Mesh* mesh) {
    static const std::map<std::string, DType> types = {{"f64", DType::f64}, {"f32", DType::f32}, {"bf16", DType::bf16}};
    const DType dtype = types.at(options.dtype);
    Device device = Device::cpu;
    together(mesh ? mesh->world() : one_rank().world(), [&] {
        device = device_for(options.device == "cuda" ? Device::cuda : Device::cpu, dtype);
        if (!options.output.empty() && options.cases.size() > 1) fail(Exit::usage, "--output takes one case, not {}; run them one by one", options.cases.size());
    });
    const bool speaks = !mesh || mesh->world().rank() == 0;
    Exit worst = Exit::done;
    for (const std::string& folder : options.cases) {
        try {
            const Judgement judgement = judge(folder, device, dtype, options.output, mesh);
            const char* word = judgement.verdict == Verdict::ok ? "ok     " : judgement.verdict == Verdict::skipped ? "skipped" : "FAILED ";
            if (speaks) fmt::print("{} {} {}{}: {}\n", word, folder, options.dtype, judgement.device == Device::cuda ? " on cuda" : device == Device::cuda ? " on cpu (no device side)" : "", judgement.details);
            if (judgement.verdict == Verdict::out_of_tolerance && worst == Exit::done) worst = Exit::out_of_tolerance;
        } catch (const Error& error) {
            if (mesh && !dynamic_cast<const SharedError*>(&error)) throw;  // of this rank alone, while the others are in the middle of something
            if (speaks) fmt::print("FAILED  {}: {}\n", folder, error.what());
            if (worst == Exit::done || worst == Exit::out_of_tolerance) worst = error.code;
        }
        std::fflush(stdout);
    }
    return worst;
}

void run(const Options& options) {
    Exit worst = Exit::done;
    World world([](const World::Trouble& trouble) { fmt::print(stderr, "flanmoe: {}\n", trouble.sentence); });
    world.run([&] {
        if (world.size() == 1) {
            worst = run_rank(options, nullptr);
            return;
        }
        world.set_limits(5, 300);
        const Mesh mesh(world.ranks(), {world.size(), 1, 1});
        worst = run_rank(options, &mesh);
    });
    if (worst != Exit::done) throw CLI::RuntimeError(static_cast<int>(worst));
}

}  // namespace

void add_parity(CLI::App& program) {
    auto options = std::make_shared<Options>();
    CLI::App* command = program.add_subcommand("parity", "Recompute recorded numerical cases and compare: one line a case, exit code 0 if all are within tolerance, "
                                                         "1 if one is not, 65 if a case is malformed");
    command->add_option("cases", options->cases, "Folders of cases (case.json and safetensors files)")->required()->type_name("CASE");
    command->add_option("--device", options->device, "Device that computes: cpu or cuda")->check(CLI::IsMember({"cpu", "cuda"}).description(""))->type_name("DEVICE")->capture_default_str();
    command->add_option("--dtype", options->dtype, "Precision: f64, f32 or bf16")->check(CLI::IsMember({"f64", "f32", "bf16"}).description(""))->type_name("DTYPE")->capture_default_str();
    command->add_option("--output", options->output, "Write what was computed to this file (one case): safetensors, or JSON for the kinds without tensors")->type_name("FILE");
    command->footer("Example:\n  flanmoe parity test/oracle/router-switch --dtype f64");
    command->callback([options] { run(*options); });
}

}  // namespace flanmoe::cli
