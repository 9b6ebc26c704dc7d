#include "cli/config_arguments.hpp"

#include "core/error.hpp"

#include <CLI/CLI.hpp>

namespace flanmoe::cli {

void ConfigArguments::add_to(CLI::App* command) {
    command->add_option("files", files, "TOML files, merged left to right")->type_name("FILE");
    // One value a flag, so that a file may follow it.
    command->add_option("--set", settings, "one option, over all files: section.key=value (repeatable)")->type_name("KEY=VALUE")->expected(1)->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void ConfigArguments::add_device_to(CLI::App* command) {
    command->add_option("--device", device, "What computes: cpu or cuda (train.device)")->check(CLI::IsMember({"cpu", "cuda"}).description(""))->type_name("DEVICE");
}

Config ConfigArguments::load() const {
    std::vector<std::string> all = settings;
    for (const std::string& setting : settings)
        if (!device.empty() && setting.starts_with("train.device=")) fail(Exit::usage, "--device and --set {} say the same thing twice; give one of them", setting);
    if (!device.empty()) all.push_back("train.device=" + device);
    return load_config({files.begin(), files.end()}, all);
}

}  // namespace flanmoe::cli
