// flanmoe inspect: what a checkpoint, a model directory or a safetensors file holds. Reads headers only, unless values are asked for.
#include "checkpoint/inspection.hpp"
#include "checkpoint/resolve.hpp"
#include "checkpoint/tensor_statistics.hpp"
#include "checkpoint/tensor_tree.hpp"
#include "cli/commands.hpp"
#include "cli/inspect_routing.hpp"
#include "cli/table.hpp"
#include "core/file.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <memory>

namespace flanmoe::cli {

namespace {

using Json = nlohmann::ordered_json;
using Found = WeightFiles::Found;

struct Options {
    std::string path, other;
    bool statistics = false, verify = false, routing = false, json = false, all = false;
};

struct TensorChange {
    std::string name, note;  // note: why values were not compared
    TensorDifference values;
};

struct Comparison {
    std::vector<std::string> config;
    std::vector<TensorChange> changed;
    int64_t equal = 0;
    bool same() const { return config.empty() && changed.empty(); }
};

std::vector<const TensorEntry*> entries_of(const WeightFiles& weights) {
    std::vector<const TensorEntry*> entries;
    for (const SafetensorsFile& file : weights.files())
        for (const TensorEntry& entry : file.entries()) entries.push_back(&entry);
    return entries;
}

std::string number(double value) { return fmt::format("{:.4g}", value); }

void print_head(const Inspection& found) {
    fmt::print("{}\n{}, {} file{} of weights, {}\n", printable(found.path.string()), found.kind, found.weights.files().size(),
               found.weights.files().size() == 1 ? "" : "s", human_bytes(found.bytes));
    if (found.config) fmt::print("{}\n", describe(*found.config));
    if (!found.config_problem.empty()) fmt::print("config.json cannot be used: {}\n", found.config_problem);
}

void print_tree(const Inspection& found, bool fold) {
    Table table({{"tensor", Align::left},
                 {"shape", Align::left},
                 {"type", Align::left},
                 {"x", Align::right},
                 {"parameters", Align::right},
                 {"size", Align::right}});
    for (const TreeRow& row : tensor_tree(entries_of(found.weights), fold)) {
        const TensorEntry& first = *row.tensors[0];
        table.add({row.guide + row.label, row.leaf ? first.shape_text() : "", row.leaf ? name_of(first.type) : "",
                   row.copies > 1 ? fmt::format("{}", row.copies) : "", thousands(row.parameters), human_bytes(row.bytes)});
    }
    fmt::print("\n{}", table.text());
}

void print_counts(const Inspection& found) {
    Table table({{"kind", Align::left}, {"tensors", Align::right}, {"parameters", Align::right}, {"share", Align::right}});
    for (int i = 0; i < tensor_kinds; ++i) {
        const size_t k = static_cast<size_t>(i);
        if (found.tensors_by_kind[k] == 0) continue;
        table.add({name_of(static_cast<TensorKind>(i)), thousands(found.tensors_by_kind[k]), thousands(found.parameters_by_kind[k]),
                   fmt::format("{:.1f} %", 100.0 * static_cast<double>(found.parameters_by_kind[k]) /
                                               static_cast<double>(std::max<int64_t>(1, found.parameters)))});
    }
    table.add({"total", thousands(found.weights.tensors()), thousands(found.parameters), ""});
    if (found.active)
        table.add({"active for a token", "", thousands(static_cast<int64_t>(*found.active + 0.5)),
                   fmt::format("{:.1f} %", 100 * *found.active / static_cast<double>(std::max<int64_t>(1, found.parameters)))});
    fmt::print("\n{}", table.text());
}

void print_training(const TrainingSummary& training) {
    Table table({{"training state", Align::left}, {"", Align::left}});
    for (const auto& [key, value] : training.state) table.add({key, value});
    for (const OptimizerSlot& slot : training.optimizer)
        table.add(
            {"optimizer " + slot.slot, fmt::format("{} tensors, {} values, {}", slot.tensors, thousands(slot.elements), human_bytes(slot.bytes))});
    fmt::print("\n{}", table.text());
}

std::vector<Found> sorted_tensors(const WeightFiles& weights) {
    std::vector<Found> tensors;
    for (const SafetensorsFile& file : weights.files())
        for (const TensorEntry& entry : file.entries()) tensors.push_back({&file, &entry});
    return tensors;
}

void print_statistics(const Inspection& found, bool fold) {
    const std::vector<Found> tensors = sorted_tensors(found.weights);
    const std::vector<Statistics> each = statistics(tensors);
    std::map<const TensorEntry*, const Statistics*> by_entry;
    for (size_t i = 0; i < tensors.size(); ++i) by_entry[tensors[i].entry] = &each[i];
    Table table({{"values of", Align::left},
                 {"x", Align::right},
                 {"min", Align::right},
                 {"max", Align::right},
                 {"mean", Align::right},
                 {"deviation", Align::right},
                 {"norm", Align::right},
                 {"zeros", Align::right},
                 {"non-finite", Align::right}});
    for (const TreeRow& row : tensor_tree(entries_of(found.weights), fold)) {
        if (!row.leaf) continue;
        Statistics s;
        for (const TensorEntry* entry : row.tensors) s.merge(*by_entry.at(entry));
        const bool any = s.count > s.non_finite;
        table.add({row.path, row.copies > 1 ? fmt::format("{}", row.copies) : "", any ? number(s.minimum) : "-", any ? number(s.maximum) : "-",
                   any ? number(s.mean) : "-", any ? number(s.deviation()) : "-", any ? number(s.norm()) : "-", s.count ? thousands(s.zeros) : "not read",
                   s.count ? thousands(s.non_finite) : "-"});
    }
    fmt::print("\n{}", table.text());

    const std::vector<ExpertSpread> spreads = expert_spreads(found.weights);
    if (spreads.empty()) return;
    Table experts({{"distance between experts (0 = equal, 1.41 = independent)", Align::left},
                   {"experts", Align::right},
                   {"mean", Align::right},
                   {"least", Align::right},
                   {"most", Align::right},
                   {"closest", Align::left}});
    for (const ExpertSpread& s : spreads)
        experts.add({printable(s.name), fmt::format("{}", s.experts), number(s.mean), number(s.least), number(s.most),
                     fmt::format("{} and {}", s.closest_a, s.closest_b)});
    fmt::print("\n{}", experts.text());
}

Comparison compare(const std::filesystem::path& a, const std::filesystem::path& b) {
    const WeightFiles left(a), right(b);
    Comparison result;
    if (std::filesystem::exists(a / "config.json") && std::filesystem::exists(b / "config.json"))
        result.config = config_differences(a / "config.json", b / "config.json");
    for (const Found& mine : sorted_tensors(left)) {
        const Found other = right.find(mine.entry->name);
        TensorChange change{mine.entry->name, "", {}};
        if (!other) {
            change.note = "only in the first";
        } else if (mine.entry->shape != other.entry->shape) {
            change.note = fmt::format("shape {} -> {}", mine.entry->shape_text(), other.entry->shape_text());
        } else {
            change.values = difference(mine, other);
            if (mine.entry->type != other.entry->type)
                change.note = fmt::format("type {} -> {}", name_of(mine.entry->type), name_of(other.entry->type));
            if (change.values.equal && change.note.empty()) {
                ++result.equal;
                continue;
            }
        }
        result.changed.push_back(std::move(change));
    }
    for (const Found& theirs : sorted_tensors(right))
        if (!left.find(theirs.entry->name)) result.changed.push_back({theirs.entry->name, "only in the second", {}});
    std::stable_sort(result.changed.begin(), result.changed.end(),
                     [](const TensorChange& x, const TensorChange& y) { return x.values.relative > y.values.relative; });
    return result;
}

void print_comparison(const Comparison& comparison, bool all) {
    for (const std::string& line : comparison.config) fmt::print("config.json {}\n", line);
    fmt::print("{} tensors are equal, {} differ\n", comparison.equal, comparison.changed.size());
    if (comparison.changed.empty()) return;
    Table table({{"tensor", Align::left}, {"largest change", Align::right}, {"relative change", Align::right}, {"", Align::left}});
    const size_t shown = all ? comparison.changed.size() : std::min<size_t>(comparison.changed.size(), 40);
    for (size_t i = 0; i < shown; ++i) {
        const TensorChange& change = comparison.changed[i];
        const bool values = !change.values.equal;
        table.add({printable(change.name), values ? number(change.values.largest) : "", values ? number(change.values.relative) : "", change.note});
    }
    fmt::print("\n{}", table.text());
    if (shown < comparison.changed.size()) fmt::print("{} more; see them with --all\n", comparison.changed.size() - shown);
}

Json statistics_json(const Statistics& s) {
    if (s.count == 0) return nullptr;  // empty, or of a type that is not read
    return {{"min", s.minimum}, {"max", s.maximum},          {"mean", s.mean}, {"deviation", s.deviation()}, {"norm", s.norm()},
            {"zeros", s.zeros}, {"non_finite", s.non_finite}};
}

void add_training_json(Json& json, const Inspection& found) {
    if (!found.training) return;
    Json& training = json["training"];
    const std::filesystem::path state = found.path / "training" / "state.json";
    if (std::filesystem::exists(state)) training["state"] = Json::parse(read_file(state));
    for (const OptimizerSlot& slot : found.training->optimizer)
        training["optimizer"][slot.slot] = {{"tensors", slot.tensors}, {"values", slot.elements}, {"bytes", slot.bytes}};
}

Json inspection_json(const Inspection& found, bool with_statistics) {
    Json json;
    json["path"] = found.path.string();
    json["kind"] = found.kind;
    json["parameters"] = found.parameters;
    json["active_parameters"] = found.active ? Json(*found.active) : Json(nullptr);
    json["bytes"] = found.bytes;
    for (int i = 0; i < tensor_kinds; ++i)
        if (found.tensors_by_kind[static_cast<size_t>(i)])
            json["parameters_by_kind"][name_of(static_cast<TensorKind>(i))] = found.parameters_by_kind[static_cast<size_t>(i)];
    if (found.config) json["config"] = Json::parse(read_file(found.path / "config.json"));
    if (!found.config_problem.empty()) json["config_problem"] = found.config_problem;
    add_training_json(json, found);
    const std::vector<Found> tensors = sorted_tensors(found.weights);
    const std::vector<Statistics> each = with_statistics ? statistics(tensors) : std::vector<Statistics>();
    json["tensors"] = Json::object();
    auto& listed = json["tensors"].get_ref<Json::object_t&>();  // a vector: appended to, without looking for the name first
    for (size_t i = 0; i < tensors.size(); ++i) {
        const TensorEntry& entry = *tensors[i].entry;
        Json tensor;
        tensor["shape"] = entry.shape;
        tensor["dtype"] = name_of(entry.type);
        tensor["bytes"] = entry.bytes();
        tensor["file"] = tensors[i].file->path().filename().string();
        if (with_statistics) tensor["statistics"] = statistics_json(each[i]);
        listed.push_back({entry.name, std::move(tensor)});
    }
    if (with_statistics)
        for (const ExpertSpread& s : expert_spreads(found.weights))
            json["experts"][s.name] = {
                {"experts", s.experts}, {"mean", s.mean}, {"least", s.least}, {"most", s.most}, {"closest", {s.closest_a, s.closest_b}}};
    return json;
}

Json comparison_json(const Comparison& comparison) {
    Json json;
    json["config"] = comparison.config;
    json["equal"] = comparison.equal;
    json["tensors"] = Json::object();
    for (const TensorChange& change : comparison.changed)
        json["tensors"][change.name] = {{"largest", change.values.largest}, {"relative", change.values.relative}, {"note", change.note}};
    return json;
}

void verify(const Options& options) {
    std::vector<std::string> checked;
    const std::vector<std::string> problems = verify_path(options.path, checked);
    if (options.json) {
        fmt::print("{}\n", Json{{"path", options.path}, {"ok", problems.empty()}, {"checked", checked}, {"problems", problems}}.dump(2, ' ', true));
    } else {
        for (const std::string& line : checked) fmt::print("ok      {}\n", line);
        for (const std::string& line : problems) fmt::print("FAILED  {}\n", line);
    }
    if (!problems.empty()) throw CLI::RuntimeError(static_cast<int>(Exit::out_of_tolerance));
}

void run_inspect(const Options& options) {
    if (options.verify) return verify(options);
    if (!options.other.empty()) {
        const Comparison comparison = compare(options.path, options.other);
        if (options.json)
            fmt::print("{}\n", comparison_json(comparison).dump(2, ' ', true));
        else
            print_comparison(comparison, options.all);
        if (!comparison.same()) throw CLI::RuntimeError(static_cast<int>(Exit::out_of_tolerance));
        return;
    }
    const Inspection found = inspect(options.path);
    if (options.json) {
        fmt::print("{}\n", inspection_json(found, options.statistics).dump(2, ' ', true, Json::error_handler_t::replace));
        return;
    }
    print_head(found);
    print_tree(found, !options.all);
    print_counts(found);
    if (found.training) print_training(*found.training);
    if (options.statistics) print_statistics(found, !options.all);
}

}  // namespace

void add_inspect(CLI::App& program) {
    const auto options = std::make_shared<Options>();
    CLI::App* command = program.add_subcommand("inspect", "Show what a checkpoint, a Hugging Face model directory or a safetensors file holds.");
    command->footer(
        "Examples:\n  flanmoe inspect runs/base/checkpoints/step-00001000\n  flanmoe inspect model.safetensors --stats\n"
        "  flanmoe inspect runs/base/checkpoints/step-00001000 --verify\n  flanmoe inspect before/ --diff after/\n  flanmoe inspect runs/base --routing\n\n"
        "Exit code 1: --verify found a problem, or --diff a difference.");
    command->add_option("path", options->path, "checkpoint, folder of a run (its best or else its newest checkpoint), model directory or safetensors file")->required();
    command->add_flag("--stats", options->statistics,
                      "read the values: extremes, mean, deviation, norm, zeros, non-finite; distances between experts");
    CLI::Option* verify_flag = command->add_flag("--verify", options->verify, "check every rule of the files and every hash of the manifest");
    command->add_option("--diff", options->other, "compare config and tensors with this one")->excludes(verify_flag);
    command->add_flag("--json", options->json, "write JSON");
    command->add_flag("--all", options->all, "one row for every tensor, nothing folded");
    command->add_flag("--routing", options->routing, "of a run folder: what the routers of every sparse layer did in the last recorded step and validation");
    command->callback([options] {
        if (options->routing) return print_run_routing(options->path, options->json);
        options->path = resolve_run(options->path).string();
        if (!options->other.empty()) options->other = resolve_run(options->other).string();
        run_inspect(*options);
    });
}

}  // namespace flanmoe::cli
