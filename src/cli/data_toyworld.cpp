// `flanmoe data toyworld`: writes the toy world, the data that ships. What it holds is told in data/README.md.
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "core/error.hpp"
#include "data/toyworld/generate.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <memory>

namespace flanmoe::cli {

void add_data_toyworld(CLI::App& data_command) {
    struct Arguments {
        std::string out;
        bool list = false;
        toyworld::Sizes sizes;
    };
    const auto arguments = std::make_shared<Arguments>();
    CLI::App* command = data_command.add_subcommand("toyworld", "Write the toy world: corpus, instruction families, downstream tasks");
    command->add_option("--out", arguments->out, "folder to write (new, empty, or an earlier toy world)");
    command->add_flag("--list", arguments->list, "print every family with an example instead");
    toyworld::Sizes& sizes = arguments->sizes;
    command->add_option("--seed", sizes.seed, "the same seed gives the same bytes on every machine")->check(not_negative)->capture_default_str();
    const auto size = [&](const char* name, size_t& value, const char* what, size_t least) {
        command->add_option(name, value, what)->capture_default_str()->check(CLI::Range(least, size_t{1000000}));
    };
    size("--train", sizes.train, "training examples a family", 1);
    size("--validation", sizes.validation, "validation instances a family", 1);
    size("--test", sizes.test, "test instances a family", 1);
    size("--finetune", sizes.finetune, "training examples a downstream task", 1);
    size("--documents", sizes.documents, "documents of the corpus", 20);
    command->footer("Example:\n  flanmoe data toyworld --out runs/toyworld --seed 1");
    command->callback([arguments] {
        if (arguments->list) {
            fmt::print("{}", toyworld::family_table(arguments->sizes.seed));
            return;
        }
        if (arguments->out.empty()) fail(Exit::usage, "data toyworld needs --out FOLDER (where to write) or --list (what there is)");
        toyworld::generate(arguments->out, arguments->sizes);
        fmt::print("wrote the toy world of seed {} to {} (counts in manifest.json)\n", arguments->sizes.seed, arguments->out);
    });
}

}  // namespace flanmoe::cli
