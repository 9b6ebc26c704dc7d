// See the header.
#include "train/sweep.hpp"

#include "checkpoint/checkpoint.hpp"
#include "config/options.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/nearest.hpp"
#include "data/strings.hpp"
#include "data/text_files.hpp"
#include "train/trainer.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Parts between commas that stand outside of brackets and quotes.
std::vector<std::string> list_of(const std::string& text) {
    std::vector<std::string> parts(1);
    int depth = 0;
    char quote = 0;
    for (const char c : text) {
        if (quote != 0)
            quote = c == quote ? '\0' : quote;
        else if (c == '"' || c == '\'')
            quote = c;
        else
            depth += (c == '[') - (c == ']');
        if (c == ',' && depth == 0 && quote == 0)
            parts.emplace_back();
        else
            parts.back() += c;
    }
    return parts;
}

Json read_json(const fs::path& path) {
    const Json json = Json::parse(read_file(path), nullptr, false);
    if (json.is_discarded() || !json.is_object()) fail(Exit::bad_data, "{} is no JSON object; remove it if a crash of the machine damaged it", path.string());
    return json;
}

std::vector<SweepCell> grid_of(const std::vector<SweepAxis>& axes) {
    std::vector<SweepCell> cells(1);
    for (const SweepAxis& axis : axes) {
        std::vector<SweepCell> next;
        for (const SweepCell& cell : cells)
            for (const std::string& value : axis.values) {
                next.push_back(cell);
                next.back().settings.emplace_back(axis.key, value);
            }
        cells = std::move(next);
    }
    return cells;
}

size_t place_of(const std::vector<SweepCell>& cells, const SweepCell& cell) {
    return static_cast<size_t>(std::find_if(cells.begin(), cells.end(), [&](const SweepCell& c) { return c.settings == cell.settings; }) - cells.begin());
}

std::string keys_of(const SweepCell& cell) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : cell.settings) keys.push_back(key);
    return joined(keys, ", ");
}

// The best validation in a run's metrics, found as the training finds it.
void read_validations(const fs::path& path, const EvalConfig& eval, CellResult& result) {
    if (!fs::exists(path)) return;
    for (const std::string& text : split(read_file(path), "\n")) {
        const Json line = Json::parse(text, nullptr, false);
        if (!line.is_object() || line.value("kind", "") != "validation" || !line.contains(eval.metric) || !line[eval.metric].is_number()) continue;
        const double value = line[eval.metric];
        if (!result.best || improves(eval, value, *result.best)) result.best = value, result.best_step = line.value("step", int64_t{0});
    }
}

std::string csv_cell(const std::string& text) {
    if (text.find_first_of(",\"\n") == std::string::npos) return text;
    std::string quoted = "\"";
    for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return quoted + "\"";
}

// Makes the folder unless it holds something else than a sweep.
void make_folder(const fs::path& folder) {
    const auto is_lock = [](const auto& entry) { return entry.path().filename() == "lock"; };
    const bool free = !fs::exists(folder) || fs::exists(folder / "sweep.json") || (fs::is_directory(folder) && std::all_of(fs::directory_iterator(folder), fs::directory_iterator(), is_lock));
    if (!free) fail(Exit::cannot_create, "{} is not empty and holds no sweep; name another folder (--run)", folder.string());
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(Exit::cannot_create, "cannot create the folder {}: {}; check the path and its permissions", folder.string(), error.message());
}

}  // namespace

SweepAxis parse_axis(const std::string& text, const Config& base) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) fail(Exit::usage, "the axis '{}' is no list of values; write key=value,value: --axis optimizer.learning_rate=1e-3,1e-4", text);
    SweepAxis axis{text.substr(0, equals), {}};
    const Option* option = find_option(axis.key);
    for (const std::string& value : list_of(text.substr(equals + 1))) {
        const Config config = override_config(base, {axis.key + "=" + value});  // an unknown key or a bad value is refused here
        const std::string written = option && !option->shorthand ? format_value(config, *option) : value;
        if (std::find(axis.values.begin(), axis.values.end(), written) != axis.values.end()) fail(Exit::usage, "the axis {} has the value {} twice; leave one out", axis.key, written);
        axis.values.push_back(written);
    }
    return axis;
}

std::vector<std::string> SweepCell::options() const {
    std::vector<std::string> all;
    for (const auto& [key, value] : settings) all.push_back(key + "=" + value);
    return all;
}

Sweep::Sweep(fs::path folder, const Config& base, std::vector<SweepAxis> axes, bool extend) : folder_(std::move(folder)), axes_(std::move(axes)) {
    std::set<std::string> keys;
    for (const SweepAxis& axis : axes_)
        if (axis.key == "eval.metric") fail(Exit::usage, "eval.metric is what a sweep compares its cells by and no axis; make a sweep for each");
    for (const SweepAxis& axis : axes_)
        if (!keys.insert(axis.key).second) fail(Exit::usage, "the axis {} is given twice; put all its values into one", axis.key);
    if (!base.data.validates()) fail(Exit::usage, "a sweep compares by validation, but the config names no validation data; set data.validation, data.validation_mixture or data.validation_split");
    std::vector<SweepCell> wanted = grid_of(axes_);
    for (const SweepCell& cell : wanted) {
        try {
            validate(override_config(base, cell.options()));
        } catch (const Error& error) {
            fail(error.code, "cell {}: {}", joined(cell.options(), " "), error.what());
        }
    }
    make_folder(folder_);
    const auto alone = hold();
    take_up(base, extend, std::move(wanted));
    Json json;
    for (const SweepAxis& axis : axes_) json["axes"].push_back({{"key", axis.key}, {"values", axis.values}});
    json["cells"] = Json::array();
    for (const SweepCell& cell : cells_) {
        Json settings = Json::object();
        for (const auto& [key, value] : cell.settings) settings[key] = value;
        json["cells"].push_back(settings);
    }
    write_file_atomically(folder_ / "config.toml", to_toml(base));
    write_file_atomically(folder_ / "sweep.json", json.dump(1) + "\n");
}

std::unique_ptr<FileLock> Sweep::hold() const {
    auto lock = std::make_unique<FileLock>(folder_ / "lock");
    lock->lock();
    return lock;
}

// The cells that are there, then those that are new.
void Sweep::take_up(const Config& base, bool extend, std::vector<SweepCell> wanted) {
    const fs::path known = folder_ / "sweep.json", config = folder_ / "config.toml";
    if (!fs::exists(known)) {
        cells_ = std::move(wanted);
        return;
    }
    std::vector<std::string> changed;
    for (const Difference& d : differences(parse_config(read_file(config), config.string(), false), base)) {
        const bool swept = std::any_of(axes_.begin(), axes_.end(), [&](const SweepAxis& axis) { return axis.key == d.key; });
        if (!d.may_change && !swept) changed.push_back(fmt::format("{} was {} and is {}", d.key, d.old_value, d.new_value));
    }
    if (!changed.empty()) fail(Exit::usage, "{} holds a sweep of another config ({}); take the values back, or name another folder (--run)", folder_.string(), joined(changed, "; "));
    const Json json = read_json(known);
    for (const Json& settings : json.at("cells")) {
        SweepCell cell;
        for (const auto& [key, value] : settings.items()) cell.settings.emplace_back(key, value.get<std::string>());
        cells_.push_back(std::move(cell));
    }
    if (keys_of(cells_.at(0)) != keys_of(wanted.at(0)))
        fail(Exit::usage, "{} holds a sweep over {}, not over {}; name another folder (--run)", folder_.string(), keys_of(cells_[0]), keys_of(wanted[0]));
    std::vector<SweepCell> fresh;
    for (const SweepCell& cell : wanted)
        if (place_of(cells_, cell) == cells_.size()) fresh.push_back(cell);
    const size_t others = cells_.size() - (wanted.size() - fresh.size());
    if (!fresh.empty() && !extend)
        fail(Exit::usage, "{} of the {} cells of this grid are not in the sweep of {}, the first with {}; add them with --extend, or name another folder (--run)", fresh.size(), wanted.size(),
             folder_.string(), joined(fresh[0].options(), " "));
    if (others > 0 && !extend)
        fail(Exit::usage, "the sweep of {} has {} cells besides those of this grid; give all their values, go on with all by --extend, or name another folder (--run)", folder_.string(), others);
    cells_.insert(cells_.end(), fresh.begin(), fresh.end());
    for (SweepAxis& axis : axes_)  // all values, those that are there first
        for (const SweepCell& cell : cells_)
            for (const auto& [key, value] : cell.settings)
                if (key == axis.key && std::find(axis.values.begin(), axis.values.end(), value) == axis.values.end()) axis.values.push_back(value);
}

const char* state_name(CellResult::State state) {
    constexpr const char* names[] = {"waiting", "begun", "failed", "done"};
    return names[static_cast<size_t>(state)];
}

CellResult read_result(const Sweep& sweep, size_t cell, const Config& base) {
    CellResult result;
    const Config config = override_config(base, sweep.cells()[cell].options());
    const EvalConfig& eval = config.eval;
    const fs::path run = sweep.run(cell), failure = sweep.beside(cell, ".failed.json");
    read_validations(run / "metrics.jsonl", eval, result);
    if (fs::exists(run / "test.json"))
        if (const Json test = read_json(run / "test.json"); test.value("split", "") == eval.test_split && test.contains(eval.metric)) result.test = test[eval.metric].get<double>();
    if (fs::exists(run / "status.json")) {
        const Json status = read_json(run / "status.json");
        result.step = status.value("step", int64_t{0}), result.message = status.value("message", "");
        const bool trained = status.value("state", "") == "done" && (result.step >= config.train.steps || result.message == stopped_early);
        result.state = trained && (eval.test_split.empty() || result.test) ? CellResult::State::done : CellResult::State::begun;
    }
    if (fs::exists(failure) && result.state != CellResult::State::done) {
        const Json json = read_json(failure);
        result.state = CellResult::State::failed;
        result.code = json.value("code", 0);
        result.message = fmt::format("{} (exit code {})", json.value("sentence", ""), result.code);
    }
    return result;
}

void write_failure(const Sweep& sweep, size_t cell, int code, const std::string& sentence) {
    write_file_atomically(sweep.beside(cell, ".failed.json"), Json{{"code", code}, {"sentence", sentence}}.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

void forget_failure(const Sweep& sweep, size_t cell) {
    std::error_code none;
    fs::remove(sweep.beside(cell, ".failed.json"), none);
}

std::optional<size_t> best_cell(const std::vector<CellResult>& results, const Config& base) {
    EvalConfig exactly = base.eval;
    exactly.min_delta = 0;
    std::optional<size_t> best;
    for (size_t c = 0; c < results.size(); ++c)
        if (results[c].state == CellResult::State::done && results[c].best && (!best || improves(exactly, *results[c].best, *results[*best].best))) best = c;
    return best;
}

std::string sweep_json(const Sweep& sweep, const std::vector<CellResult>& results, const Config& base) {
    const std::optional<size_t> best = best_cell(results, base);
    Json json = {{"metric", base.eval.metric}, {"test_split", base.eval.test_split}};
    json["best"] = best ? Json(*best) : Json();
    json["cells"] = Json::array();
    for (size_t c = 0; c < results.size(); ++c) {
        const CellResult& r = results[c];
        Json cell = {{"cell", c}, {"run", sweep.run(c).string()}};
        for (const auto& [key, value] : sweep.cells()[c].settings) cell["settings"][key] = value;
        cell["state"] = state_name(r.state);
        cell["message"] = r.message;
        if (r.best) cell["validation"] = *r.best, cell["best_step"] = r.best_step;
        cell["step"] = r.step;
        if (r.test) cell["test"] = *r.test;
        json["cells"].push_back(cell);
    }
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string sweep_csv(const Sweep& sweep, const std::vector<CellResult>& results, const Config& base) {
    const std::optional<size_t> best = best_cell(results, base);
    std::string text = "cell";
    for (const SweepAxis& axis : sweep.axes()) text += "," + csv_cell(axis.key);
    text += fmt::format(",state,{},best_step,step,test,best,message\n", base.eval.metric);
    for (size_t c = 0; c < results.size(); ++c) {
        const CellResult& r = results[c];
        text += std::to_string(c);
        for (const auto& [key, value] : sweep.cells()[c].settings) text += "," + csv_cell(value);
        text += fmt::format(",{},{},{},{},{},{},{}\n", state_name(r.state), r.best ? fmt::format("{}", *r.best) : "", r.best ? std::to_string(r.best_step) : "", r.step,
                            r.test ? fmt::format("{}", *r.test) : "", best == c ? 1 : 0, csv_cell(r.message));
    }
    return text;
}

}  // namespace flanmoe
