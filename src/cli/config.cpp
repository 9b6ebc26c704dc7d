// `flanmoe config`: what a set of files and settings means, and which options there are.
#include "cli/commands.hpp"
#include "cli/config_arguments.hpp"
#include "core/log.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace flanmoe::cli {

void add_config(CLI::App& program) {
    auto arguments = std::make_shared<ConfigArguments>();
    auto list = std::make_shared<bool>(false);
    CLI::App* command = program.add_subcommand("config", "Check config files and print every option they lead to; --options describes all options");
    arguments->add_to(command);
    command->add_flag("--options", *list, "print every option with type, default and meaning");
    command->footer("Example:\n  flanmoe config configs/model/toy.toml --set train.steps=100");
    command->callback([arguments, list] {
        if (*list) {
            fmt::print("{}", option_reference());
            return;
        }
        const Config config = arguments->load();
        for (const std::string& warning : routing_warnings(config.model)) warn("{}", warning);
        fmt::print("{}", to_toml(config));
    });
}

}  // namespace flanmoe::cli
