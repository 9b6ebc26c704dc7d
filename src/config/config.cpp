// Loading and writing a Config: settings from files and the command line are merged as a flat list, then applied in the order of the table, so that
// a shorthand always comes before what it stands for.
#include "config/config.hpp"

#include "config/dense_twin.hpp"
#include "config/options.hpp"
#include "config/toml.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/log.hpp"

namespace flanmoe {

namespace {

ModelConfig twin_with_report(const ModelConfig& sparse) {
    const DenseTwin twin = dense_twin(sparse);
    if (sparse.experts == 0) warn("moe.dense_twin is set, but the model is dense already: it stays as it is");
    if (sparse.experts > 0) {
        info("dense twin of {} experts in {} layers: FLOPs per token in layers differ by {:+.2f} %", sparse.experts, sparse.encoder_sparse.size() + sparse.decoder_sparse.size(),
             100 * twin.difference);
    }
    return twin.model;
}

Config resolve(const Settings& settings, Config config = {}) {
    for (const Option& option : options())
        if (const auto found = settings.find(option.key); found != settings.end()) assign(config, option, found->second);
    if (config.model.dense_twin) config.model = twin_with_report(config.model);
    // What follows from elsewhere: the data section's view of the model, and a dense model that has no sparse layers.
    if (config.model.experts == 0) {
        config.model.encoder_sparse.clear();
        config.model.decoder_sparse.clear();
    }
    config.data.encoder_decoder = config.model.encoder_decoder;
    config.data.bidirectional_prefix = config.model.bidirectional_prefix;
    config.data.pad_id = config.model.pad_id;
    config.data.eos_id = config.model.eos_id;
    config.data.decoder_start_id = config.model.decoder_start_id;
    return config;
}

std::string section_of(const Option& option) { return option.key.substr(0, option.key.rfind('.')); }
std::string name_of(const Option& option) { return option.key.substr(option.key.rfind('.') + 1); }

}  // namespace

Config load_config(const std::vector<std::filesystem::path>& files, const std::vector<std::string>& settings) {
    Settings merged;
    for (const std::filesystem::path& file : files) read_toml(read_file(file, int64_t{1} << 20), file.string(), merged);
    for (const std::string& setting : settings) read_setting(setting, merged);
    const Config config = resolve(merged);
    validate(config);
    return config;
}

Config parse_config(const std::string& text, const std::string& name, bool check) {
    Settings settings;
    read_toml(text, name, settings);
    const Config config = resolve(settings);
    if (check) validate(config);
    return config;
}

Config override_config(const Config& base, const std::vector<std::string>& settings) {
    Settings merged;
    for (const std::string& setting : settings) read_setting(setting, merged);
    return resolve(merged, base);
}

std::string to_toml(const Config& config) {
    std::string text, section;
    for (const Option& option : options()) {
        if (option.shorthand) continue;
        if (section_of(option) != section) {
            section = section_of(option);
            text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
        }
        text += fmt::format("{} = {}\n", name_of(option), format_value(config, option));
    }
    return text;
}

std::string option_reference() {
    const Config defaults;
    std::string text, section;
    for (const Option& option : options()) {
        if (section_of(option) != section) {
            section = section_of(option);
            text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
        }
        const std::string value = format_value(defaults, option);
        text += fmt::format("{}{}\n    {}; {}\n", name_of(option), value.empty() ? "" : " = " + value, type_text(option), option.help);
    }
    return text;
}

std::vector<Difference> differences(const Config& before, const Config& after) {
    std::vector<Difference> found;
    for (const Option& option : options()) {
        if (option.shorthand) continue;
        const std::string old_value = format_value(before, option), new_value = format_value(after, option);
        if (old_value != new_value) found.push_back({option.key, old_value, new_value, option.may_change});
    }
    return found;
}

}  // namespace flanmoe
