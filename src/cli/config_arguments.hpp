// The arguments of every command that takes a config: TOML files and `--set`.
#pragma once

#include "config/config.hpp"

namespace CLI {
class App;
}

namespace flanmoe::cli {

struct ConfigArguments {
    std::vector<std::string> files, settings;
    std::string device;  ///< of --device; empty if it was not given

    /// Adds the positional FILES and `--set`; this object must live as long as the app.
    void add_to(CLI::App* command);
    /// Adds `--device`, for commands that compute.
    void add_device_to(CLI::App* command);
    Config load() const;  ///< Exit::usage if --device and --set train.device are both given
};

}  // namespace flanmoe::cli
