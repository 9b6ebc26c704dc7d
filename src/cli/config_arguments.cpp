#include "cli/config_arguments.hpp"

#include <CLI/CLI.hpp>

namespace flanmoe::cli {

void ConfigArguments::add_to(CLI::App* command) {
    command->add_option("files", files, "TOML files, merged left to right")->type_name("FILE");
    // One value a flag, so that a file may follow it.
    command->add_option("--set", settings, "one option, over all files: section.key=value (repeatable)")->type_name("KEY=VALUE")->expected(1)->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void ConfigArguments::add_device_to(CLI::App* command) {
    command->add_option_function<std::string>("--device", [this](const std::string& name) { settings.push_back("train.device=" + name); }, "what computes: cpu or cuda (train.device)")
        ->type_name("DEVICE");
}

Config ConfigArguments::load() const { return load_config({files.begin(), files.end()}, settings); }

}  // namespace flanmoe::cli
