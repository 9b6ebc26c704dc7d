// Rows are layers and columns are figures, whichever the run recorded: this file knows no names.
#include "cli/inspect_routing.hpp"

#include "cli/table.hpp"
#include "core/error.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace flanmoe::cli {

namespace {

using Json = nlohmann::ordered_json;

// The last record of each kind; what is cut short at the end of the file does not count.
std::map<std::string, Json> last_records(const std::filesystem::path& path) {
    std::ifstream file(path);
    std::map<std::string, std::string> lines;
    for (std::string line; std::getline(file, line);) {
        constexpr std::string_view head = "{\"kind\":\"";
        if (!line.starts_with(head) || !line.ends_with('}')) continue;
        lines[line.substr(head.size(), line.find('"', head.size()) - head.size())] = line;
    }
    std::map<std::string, Json> records;
    for (const auto& [kind, line] : lines)
        if (Json record = Json::parse(line, nullptr, false); record.is_object()) records[kind] = std::move(record);
    return records;
}

// {"encoder.1": {"utilization": 0.8, ...}, ...} of a record.
Json layers_of(const Json& record) {
    Json layers = Json::object();
    for (const auto& [key, value] : record.items())
        if (const size_t slash = key.find('/'); slash != std::string::npos) layers[key.substr(0, slash)][key.substr(slash + 1)] = value;
    return layers;
}

std::string table_of(const Json& layers) {
    std::vector<std::string> names;
    for (const auto& [layer, figures] : layers.items())
        for (const auto& [name, value] : figures.items())
            if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    std::vector<std::pair<std::string, Align>> columns = {{"layer", Align::left}};
    for (const std::string& name : names) columns.emplace_back(name, Align::right);
    Table table(columns);
    for (const auto& [layer, figures] : layers.items()) {
        std::vector<std::string> row = {layer};
        for (const std::string& name : names) row.push_back(figures.contains(name) && figures[name].is_number() ? fmt::format("{:.4g}", figures[name].get<double>()) : "-");
        table.add(row);
    }
    return table.text();
}

}  // namespace

void print_run_routing(const std::filesystem::path& run, bool json) {
    const std::filesystem::path path = run / "metrics.jsonl";
    if (!std::filesystem::exists(path)) fail(Exit::missing_input, "{} holds no metrics.jsonl; name the folder of a run, or trace a checkpoint with flanmoe eval --routing-trace", run.string());
    Json all;
    for (const auto& [kind, record] : last_records(path))
        if (Json layers = layers_of(record); !layers.empty()) all[kind] = {{"step", record.value("step", 0)}, {"layers", std::move(layers)}};
    if (all.empty()) fail(Exit::missing_input, "{} has no figures of sparse layers; the model is dense, or no step has been recorded yet", path.string());
    if (json) return fmt::print("{}\n", all.dump(2));
    const char* before = "";
    for (const auto& [kind, record] : all.items()) {
        fmt::print("{}{}, step {}\n\n{}", before, kind, record["step"].get<int64_t>(), table_of(record["layers"]));
        before = "\n";
    }
}

}  // namespace flanmoe::cli
