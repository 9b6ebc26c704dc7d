// See the header. Settings go down the tree by value: a part reads its own over those of the part above.
#include "data/mixture_file.hpp"

#include "core/error.hpp"
#include "core/log.hpp"
#include "core/nearest.hpp"
#include "data/tasks.hpp"
#include "data/text_files.hpp"
#include "data/toml_value.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

struct Settings {
    MixtureTask way;
    std::vector<std::string> languages, exclude;
};

bool matches(const std::string& name, const std::vector<std::string>& patterns) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) { return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0; });
}

std::vector<std::string> beside(const fs::path& file, const std::vector<std::string>& paths) {
    std::vector<std::string> all;
    for (const std::string& path : paths) all.push_back(fs::path(path).is_absolute() ? path : (file.parent_path() / path).lexically_normal().string());
    return all;
}

class Builder {
public:
    explicit Builder(const MixtureChoice& choice) : choice_(choice), file_(choice.path), folder_(choice.folder) {}

    MixtureFile build() {
        Declaration d(file_);
        Settings settings;
        settings.way.split = "train";
        if (d.has("reader") || d.has("variant")) {
            add(d, {file_.string()}, {}, settings);
            return finished();
        }
        held_out(d);
        const bool any = part(d, settings, {}, "");
        if (!any) fail(Exit::usage, "{}: the mixture has neither tasks nor parts; add tasks = [\"...\"] or [[part]]", file_.string());
        for (const std::string& pattern : patterns_)
            if (!excluded_.contains(pattern)) warn("{}: exclude = {:?} matches no task; what it is to keep out of training may be called otherwise", file_.string(), pattern);
        return finished();
    }

private:
    MixtureFile finished() {
        if (!mixture_.tasks.empty()) return std::move(mixture_);
        if (choice_.only.empty()) fail(Exit::usage, "{}: the mixture's only, exclude and languages leave no task", file_.string());
        fail(Exit::usage, "{}: no task matches data.only = {}{}; it has: {}", file_.string(), joined(choice_.only, ", "), suggestion(choice_.only[0], seen_), joined(seen_, ", "));
    }

    void read(Declaration& d, Settings& s) {
        MixtureTask& w = s.way;
        w.split = d.text("split", w.split);
        w.few_shot = d.number("few_shot", w.few_shot, 0, 1);
        w.options = d.number("options", w.options, 0, 1);
        w.inversion = d.number("inversion", w.inversion, 0, 1);
        w.language_tag = d.truth("language_tag", w.language_tag);
        const int64_t cap = d.integer("cap", 0);
        if (cap > 0) w.cap = w.cap > 0 ? std::min(w.cap, cap) : cap;
        w.scale = d.number("scale", w.scale, 1e-6, 1e6);
        w.temperature = d.number("temperature", w.temperature, 0.01, 1e6);
        const DataValue shots = d.any("shots");
        if (const DataValue::List* range = shots.list(); range && range->size() == 2 && (*range)[0].integer() && (*range)[1].integer()) {
            w.fewest_shots = *(*range)[0].integer();
            w.most_shots = *(*range)[1].integer();
        } else if (const int64_t* exactly = shots.integer()) {
            w.fewest_shots = w.most_shots = *exactly;
        } else if (!shots.nothing()) {
            fail(Exit::usage, "{}: shots must be a number or two, [fewest, most], not {}", d.where("shots"), shots.as_text());
        }
        if (w.fewest_shots < 1 || w.most_shots < w.fewest_shots || w.most_shots > 64)
            fail(Exit::usage, "{}: shots are {} to {}; choose 1 to 64, fewest first", d.where("shots"), w.fewest_shots, w.most_shots);
        if (d.has("languages")) s.languages = d.texts("languages");
        const std::vector<std::string> exclude = d.texts("exclude");
        s.exclude.insert(s.exclude.end(), exclude.begin(), exclude.end());
        patterns_.insert(exclude.begin(), exclude.end());
    }

    // Adds a part and what is below it; whether it has anything.
    bool part(Declaration& d, Settings settings, std::vector<size_t> path, const std::string& name) {
        read(d, settings);
        settings.way.part = name;
        settings.way.path = path;
        std::vector<Declaration> parts = d.tables("part");
        const std::vector<std::string> tasks = d.texts("tasks"), only = d.texts("only");
        if (!parts.empty() && !tasks.empty()) fail(Exit::usage, "{}: a part has tasks or parts below it, not both; make a part of the tasks", d.where("tasks"));
        d.finish();
        size_t with_proportion = 0;
        for (Declaration& below : parts) with_proportion += below.has("proportion");
        for (Declaration& below : parts) {
            if (with_proportion != 0 && with_proportion != parts.size())
                fail(Exit::usage, "{}: {} of {} parts beside one another have a proportion; give all one, or none", below.where(), with_proportion, parts.size());
            MixturePart one;
            one.name = below.text("name", fmt::format("part {}", mixture_.parts.size() + 1));
            one.proportion = below.number("proportion", 0, 1e-9, 1e9);
            std::vector<size_t> inner = path;
            inner.push_back(mixture_.parts.size());
            const std::string inner_name = name.empty() ? one.name : name + "/" + one.name;
            mixture_.parts.push_back(one);
            if (!part(below, settings, inner, inner_name)) fail(Exit::usage, "{}: the part '{}' has neither tasks nor parts", below.where(), inner_name);
        }
        if (!tasks.empty()) add(d, beside(file_, tasks), only, settings);
        return !parts.empty() || !tasks.empty();
    }

    void add(const Declaration& d, const std::vector<std::string>& files, const std::vector<std::string>& only, const Settings& settings) {
        size_t taken = 0;
        std::set<std::string> wanted;  // patterns of `only` that match a task
        for (const auto& task : load_tasks(files, folder_)) {
            seen_.push_back(task->name);
            for (const std::string& pattern : settings.exclude)
                if (matches(task->name, {pattern})) excluded_.insert(pattern);
            for (const std::string& pattern : only)
                if (matches(task->name, {pattern})) wanted.insert(pattern);
            if ((!only.empty() && !matches(task->name, only)) || matches(task->name, settings.exclude)) continue;
            if (!settings.languages.empty() && std::find(settings.languages.begin(), settings.languages.end(), task->language) == settings.languages.end()) continue;
            ++taken;
            if (!choice_.only.empty() && !matches(task->name, choice_.only)) continue;
            MixtureTask one = settings.way;
            one.task = task;
            if (!choice_.split.empty()) one.split = choice_.split;
            if (task->cap > 0) one.cap = one.cap > 0 ? std::min(one.cap, task->cap) : task->cap;
            if (!task->has_split(one.split))
                fail(Exit::usage, "{}: task {} has no split '{}'; leave it out (exclude), or choose another split", d.where("tasks"), task->name, one.split);
            const auto [first, fresh] = names_.try_emplace(task->name, one.part);
            if (!fresh) fail(Exit::usage, "{}: task {} stands in the parts '{}' and '{}'; keep it in one", d.where("tasks"), task->name, first->second, one.part);
            mixture_.tasks.push_back(std::move(one));
        }
        if (taken == 0 && !only.empty()) fail(Exit::usage, "{}: no task of {} matches only = {}", d.where("only"), joined(files, ", "), joined(only, ", "));
        for (const std::string& pattern : only)
            if (!wanted.contains(pattern)) warn("{}: only = {:?} matches no task; what it is to train on may be called otherwise", d.where("only"), pattern);
        if (taken == 0) warn("{}: exclude and languages leave none of these tasks, so this part gives its share to those beside it", d.where("tasks"));
    }

    void held_out(Declaration& d) {
        Declaration h = d.table("held_out");
        mixture_.held_out.splits = h.has("splits") ? h.texts("splits") : std::vector<std::string>{"test"};
        mixture_.held_out.ngram = h.integer("ngram", 13, 1);
        const std::string policy = h.text("policy", "warn");
        if (policy != "warn" && policy != "drop" && policy != "refuse") fail(Exit::usage, "{}: policy is '{}'; choose warn, drop or refuse", h.where("policy"), policy);
        mixture_.held_out.policy = policy == "warn" ? HeldOut::Policy::warn : policy == "drop" ? HeldOut::Policy::drop : HeldOut::Policy::refuse;
        if (const std::vector<std::string> files = h.texts("tasks"); !files.empty()) mixture_.held_out.tasks = load_tasks(beside(file_, files), folder_);
        h.finish();
    }

    std::set<std::string> patterns_, excluded_;  ///< of exclude: all, and those that matched
    const MixtureChoice& choice_;
    fs::path file_, folder_;
    std::vector<std::string> seen_;  ///< names of tasks, also of those that are left out
    MixtureFile mixture_;
    std::map<std::string, std::string> names_;
};

}  // namespace

MixtureChoice training_choice(const DataConfig& config) { return {config.mixture, config.folder, config.only, "", config.tasks, config.tasks_seed}; }

MixtureChoice validation_choice(const DataConfig& config) {
    return {config.validation_split.empty() ? config.validation_mixture : config.mixture, config.folder, config.only, config.validation_split, 0, 0};
}

MixtureFile load_mixture(const MixtureChoice& choice) {
    MixtureFile mixture = Builder(choice).build();
    if (choice.count == 0) return mixture;
    if (choice.count > static_cast<int64_t>(mixture.tasks.size()))
        fail(Exit::usage, "data.tasks is {}, but {} has {} tasks; choose at most so many, or 0 for all", choice.count, choice.path.string(), mixture.tasks.size());
    std::vector<TaskFile> names;
    for (size_t i = 0; i < mixture.tasks.size(); ++i) names.push_back({mixture.tasks[i].task->name, {}, i});
    std::vector<MixtureTask> chosen;
    for (const TaskFile& task : choose_tasks(std::move(names), choice.count, choice.seed)) chosen.push_back(mixture.tasks[task.entry]);
    mixture.tasks = std::move(chosen);
    return mixture;
}

std::vector<double> mixture_rates(const MixtureFile& mixture, const std::vector<int64_t>& examples) {
    require(examples.size() == mixture.tasks.size(), "a number of examples for every task");
    std::vector<double> weights;
    std::vector<double> of_part(mixture.parts.size(), 0.0);  // sum of the weights below
    for (size_t i = 0; i < mixture.tasks.size(); ++i) {
        const MixtureTask& t = mixture.tasks[i];
        double size = static_cast<double>(examples[i]) * t.scale;
        if (t.cap > 0) size = std::min(size, static_cast<double>(t.cap));
        weights.push_back(std::pow(size, 1.0 / t.temperature));
        for (size_t part : t.path) of_part[part] += weights.back();
    }
    // The shares of the parts beside one another sum to 1: by proportion, or by weight, among those that have tasks.
    std::map<std::vector<size_t>, double> sums;  // path of the part above -> sum of proportions (or weights) of its parts
    std::vector<bool> counted(mixture.parts.size(), false);
    const auto claim = [&](size_t part) { return mixture.parts[part].proportion > 0 ? mixture.parts[part].proportion : of_part[part]; };
    for (const MixtureTask& t : mixture.tasks)
        for (size_t depth = 0; depth < t.path.size(); ++depth) {
            const size_t part = t.path[depth];
            if (!counted[part]) sums[{t.path.begin(), t.path.begin() + static_cast<std::ptrdiff_t>(depth)}] += claim(part);
            counted[part] = true;
        }
    double all = 0;
    for (double weight : weights) all += weight;
    std::vector<double> rates;
    for (size_t i = 0; i < mixture.tasks.size(); ++i) {
        const MixtureTask& t = mixture.tasks[i];
        double rate = weights[i] / (t.path.empty() ? all : of_part[t.path.back()]);
        for (size_t depth = 0; depth < t.path.size(); ++depth)
            rate *= claim(t.path[depth]) / sums.at({t.path.begin(), t.path.begin() + static_cast<std::ptrdiff_t>(depth)});
        rates.push_back(rate);
    }
    return rates;
}

}  // namespace flanmoe
