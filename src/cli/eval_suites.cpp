// See the header. Tables first, then what the three ways to run have in common, then each of them.
#include "cli/eval_suites.hpp"

#include "cli/table.hpp"
#include "checkpoint/hashed_file.hpp"
#include "comm/agreement.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "data/held_out.hpp"
#include "data/text_files.hpp"
#include "eval/suites/compare.hpp"
#include "eval/suites/run.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>

namespace flanmoe::cli {

namespace fs = std::filesystem;

namespace {

constexpr int64_t context_tokens = 2048;  // of prompts, end mark included, unless --max-input-tokens says otherwise

std::string with_interval(const Estimate& e) { return fmt::format("{:.1f} [{:.1f}, {:.1f}]", e.value, e.low, e.high); }
std::string plain(const std::optional<Estimate>& e) { return e ? fmt::format("{:.1f}", e->value) : "-"; }

std::vector<std::string> measure_cells(const std::array<std::optional<Estimate>, measure_count>& measures) {
    std::vector<std::string> cells;
    for (const auto& measure : measures) cells.push_back(plain(measure));
    return cells;
}

std::string held_out_cell(const std::optional<HeldOutCounts>& counts) { return counts ? fmt::format("{} + {}", thousands(counts->exact), thousands(counts->ngram)) : "not compared"; }

std::string suite_table(const Scores& scores, bool per_task) {
    const bool held_out = std::any_of(scores.tasks.begin(), scores.tasks.end(), [](const TaskScore& t) { return t.task->held_out.has_value(); });
    std::vector<std::pair<std::string, Align>> columns = {{"suite", Align::left}, {"mode", Align::left}, {"task", Align::left}, {"questions", Align::right}, {"score [95 %]", Align::right},
        {"normalised [95 %]", Align::right}, {"generated", Align::right}, {"likelihood", Align::right}, {"per token", Align::right}, {"per byte", Align::right}, {"F1", Align::right}};
    if (held_out) columns.push_back({"trained on: exact + by n-gram", Align::right});
    Table table(columns);
    const auto add = [&](std::vector<std::string> cells, const std::vector<std::string>& more, const std::string& trained = "") {
        cells.insert(cells.end(), more.begin(), more.end());
        if (held_out) cells.push_back(trained);
        table.add(cells);
    };
    for (const SuiteScore& suite : scores.suites) {
        const std::string mode = mode_name(suite.mode);
        if (per_task)
            for (const TaskScore& t : scores.tasks)
                if (t.task->suite == suite.suite && t.task->mode == suite.mode)
                    add({suite.suite, mode, t.task->name, thousands(t.items), with_interval(t.score), with_interval(t.normalized)}, measure_cells(t.measures), held_out_cell(t.task->held_out));
        for (const TaskScore& t : scores.tasks)
            if (t.task->suite == suite.suite && t.task->mode == suite.mode)
                for (const auto& [name, estimate] : t.whole)
                    add({suite.suite, mode, t.task->name + ": " + name, thousands(name == "consistency" ? t.groups : t.items), with_interval(estimate), ""}, {"", "", "", "", ""});
        if (suite.categories.size() > 1 && static_cast<int64_t>(suite.categories.size()) < suite.tasks)
            for (const auto& [name, score] : suite.categories) add({suite.suite, mode, name, "", with_interval(score), ""}, {"", "", "", "", ""});
        add({suite.suite, mode, fmt::format("mean of {} task{}", suite.tasks, suite.tasks == 1 ? "" : "s"), thousands(suite.items), with_interval(suite.score), with_interval(suite.normalized)},
            measure_cells(suite.measures), held_out_cell(suite.held_out));
    }
    for (const AverageScore& average : scores.averages)
        add({average.average.name, "", fmt::format("mean of {} suites", average.average.parts.size()), "", "", with_interval(average.score)}, {"", "", "", "", ""});
    return table.text();
}

std::string comparison_table(const Comparison& comparison, bool per_task) {
    Table table({{"suite", Align::left}, {"mode", Align::left}, {"task", Align::left}, {"questions", Align::right}, {"first", Align::right}, {"second", Align::right},
                 {"difference [95 %]", Align::right}});
    for (const ScoreDifference& row : comparison.rows)
        if (row.task.empty() || per_task)
            table.add({row.suite, row.mode, row.task.empty() ? row.mode.empty() ? "normalised" : "all" : row.task, thousands(row.items), fmt::format("{:.1f}", row.first), fmt::format("{:.1f}", row.second),
                       with_interval(row.difference)});
    return table.text();
}

void compare(const SuiteArguments& a, const SuiteCommand& c) {
    if (a.compared.size() < 2) fail(Exit::usage, "eval --compare needs two folders at least, the first is what the others are compared with");
    std::vector<Comparison> all;
    for (size_t i = 1; i < a.compared.size(); ++i) all.push_back(compare_runs(a.compared[0], a.compared[i], a.other_prompts));
    if (c.json) fmt::print("{}", comparisons_json(all));
    for (const Comparison& comparison : all) {
        if (c.table || !c.json) fmt::print("first: {}\nsecond: {}\n{}", comparison.first, comparison.second, comparison_table(comparison, a.per_task));
        if (comparison.only_first + comparison.only_second > 0)
            warn("{} questions of {} and {} of {} are left out: the other has not answered them", thousands(comparison.only_first), comparison.first, thousands(comparison.only_second), comparison.second);
        if (comparison.other_prompts > 0) warn("{} questions have other prompts in {} than in {}", thousands(comparison.other_prompts), comparison.first, comparison.second);
    }
}

Measure measure_of(const std::string& name) {
    for (size_t m = 0; m < measure_count; ++m)
        if (name == measure_name(static_cast<Measure>(m))) return static_cast<Measure>(m);
    return Measure::generation;
}

SuiteSettings suite_settings(const SuiteArguments& a, const SuiteCommand& c) {
    SuiteSettings settings = a.settings;
    settings.limit = c.eval.limit;
    settings.malformed = c.eval.malformed;
    for (const std::string& named : a.exemplars) {
        const size_t equals = named.find('=');
        if (equals == std::string::npos) fail(Exit::usage, "--exemplars is given as '{}'; write SUITE=FILE", named);
        bool known = false;
        for (const Suite& suite : suites()) known |= suite.name == named.substr(0, equals);
        if (!known) fail(Exit::usage, "--exemplars {}: there is no suite '{}'", named, named.substr(0, equals));
        settings.exemplars[named.substr(0, equals)] = named.substr(equals + 1);
    }
    return settings;
}

std::vector<SuiteTask> suite_tasks(const SuiteArguments& a, const SuiteCommand& c) {
    std::vector<SuiteTask> tasks = build_suites(a.suites, suite_settings(a, c));
    if (a.held_out.empty()) return tasks;
    if (const int64_t unknown = mark_held_out(tasks, Overlaps::from_json(read_file(a.held_out), a.held_out)))
        warn("{} of {} tasks are not among those that {} has compared; add their task files to [held_out] of the mixture", unknown, tasks.size(), a.held_out);
    return tasks;
}

SuiteRunSettings run_settings(const SuiteArguments& a, const SuiteCommand& c) {
    SuiteRunSettings settings;
    settings.eval = c.eval;
    if (!c.inputs_given) settings.eval.max_inputs = context_tokens;
    if (c.new_tokens_given) settings.direct_tokens = settings.cot_tokens = c.eval.generation.max_new_tokens;
    settings.generation = c.generation, settings.likelihood = c.likelihood;
    settings.drop_long = a.too_long == "drop";
    return settings;
}

void create_folder(const std::string& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(Exit::cannot_create, "cannot create the folder {}: {}; check the path and its permissions", folder, error.message());
}

void warn_about(const std::vector<SuiteTask>& tasks, const Scores& scores) {
    for (const SuiteTask& task : tasks)
        for (const auto& [reason, count] : task.dropped) warn("{}/{} {}: {} record{} dropped: {}", task.suite, task.name, mode_name(task.mode), thousands(count), count == 1 ? "" : "s", reason);
    int64_t no_answer = 0, unfinished = 0, shots = 0, options = 0;
    for (const TaskScore& t : scores.tasks) no_answer += t.no_answer, unfinished += t.unfinished, shots += t.shots_dropped, options += t.options_cut;
    if (options) warn("{} questions have options that were too long and lost their end (--max-target-tokens); their likelihoods are those of what was left", thousands(options));
    if (shots) warn("{} exemplars were dropped from the front of prompts that were too long (--max-input-tokens)", thousands(shots));
    if (unfinished) warn("{} outputs were cut before they ended (--max-new-tokens)", thousands(unfinished));
    if (no_answer) warn("{} outputs hold no answer; they count as wrong", thousands(no_answer));
}

void report(const SuiteArguments& a, const SuiteCommand& c, const std::vector<SuiteTask>& tasks, const std::vector<AskedQuestion>& asked, const std::vector<Sample>& samples,
            const std::string& model) {
    const Scores scores = score_samples(tasks, samples, measure_of(a.score));
    const std::string summary = scores_json(tasks, scores, model);
    if (!c.out.empty()) {
        create_folder(c.out);
        std::map<const SuiteTask*, Measure> main;
        for (const TaskScore& t : scores.tasks) main[t.task] = t.main;
        std::string lines;
        for (size_t i = 0; i < samples.size(); ++i) lines += sample_line(tasks[samples[i].task], asked[i], samples[i], main.at(&tasks[samples[i].task]));
        write_file_atomically(fs::path(c.out) / "samples.jsonl", lines);
        write_file_atomically(fs::path(c.out) / "summary.json", summary);
        write_file_atomically(fs::path(c.out) / "table.txt", suite_table(scores, true));
    }
    if (c.json) fmt::print("{}", summary);
    if (c.table || !c.json) fmt::print("{}", suite_table(scores, a.per_task));
    std::fflush(stdout);
    warn_about(tasks, scores);
}

// Prompts and scores without a model; a vocabulary, if one is named, decides which exemplars fit.
void without_model(const SuiteArguments& a, const SuiteCommand& c) {
    refuse_ranks("eval --prompts or --answers");
    std::vector<SuiteTask> tasks = suite_tasks(a, c);
    const std::shared_ptr<const Tokenizer> tokenizer = c.model.tokenizer.empty() ? nullptr : std::shared_ptr<const Tokenizer>(Tokenizer::load(c.model.tokenizer));
    const std::vector<AskedQuestion> asked = ask(tasks, tokenizer.get(), run_settings(a, c));
    if (!a.prompts.empty()) {
        std::string lines;
        for (const AskedQuestion& question : asked) lines += prompt_line(tasks[question.task], question);
        write_file_atomically(a.prompts, lines);
        if (a.answers.empty()) warn_about(tasks, {});
        info("{} prompts of {} tasks are in {}", thousands(static_cast<int64_t>(asked.size())), tasks.size(), a.prompts);
    }
    if (a.answers.empty()) return;
    int64_t missing = 0;
    const std::vector<Sample> samples = read_answers(a.answers, tasks, asked, a.missing == "wrong", missing);
    if (missing) warn("{} questions have no answer in {}; they count as wrong", thousands(missing), a.answers);
    report(a, c, tasks, asked, samples, a.answers);
}

// Of what answers depend on beside the prompts.
std::string fingerprint(const SuiteCommand& c, const SuiteRunSettings& s, const std::string& path) {
    std::string text = path;
    std::error_code error;
    for (const char* file : {"manifest.json", "config.json", "model.safetensors"})
        if (const auto time = fs::last_write_time(fs::path(path) / file, error); !error) text += fmt::format(" {}", time.time_since_epoch().count());
    return text + fmt::format(" {} {} {} {} {} {} {} {} {} {} {}", c.model.tokenizer, s.eval.max_targets, joined(c.model.settings, " "), static_cast<int>(c.model.dtype), s.direct_tokens, s.cot_tokens, s.generation, s.likelihood,
                              s.eval.generation.beams, s.eval.generation.length_penalty, s.eval.open_inputs);
}

void on_model(const SuiteArguments& a, const SuiteCommand& c, const RankMesh& ranks) {
    LoadedModel loaded;
    std::vector<SuiteTask> tasks;
    std::vector<AskedQuestion> asked;
    SuiteRunSettings settings = run_settings(a, c);
    together(ranks.world(), [&] {
        tasks = suite_tasks(a, c);  // what is wrong with the data is known before the model is read
        loaded = c.model.load(ranks.context(), ranks.mesh());
        asked = ask(tasks, loaded.tokenizer.get(), settings);
        settings.fingerprint = fingerprint(c, settings, loaded.path);
        if (!c.out.empty() && ranks.leader()) create_folder(c.out), settings.partial = fs::path(c.out) / "samples.partial.jsonl";
    });
    std::string questions;
    for (const AskedQuestion& question : asked) questions += question.prompt + '\n';
    require_same(ranks.world(), "view of the questions", hash_bytes(questions), "give all machines the same files");
    const auto start = std::chrono::steady_clock::now();
    Progress progress("evaluating");
    if (ranks.leader()) settings.eval.progress = [&](double fraction, const std::string& note) { progress.update(fraction, note); };
    SuiteRunFigures figures;
    const std::vector<Sample> samples = run_suites(ranks.context(), *loaded.model, *loaded.tokenizer, tasks, asked, settings, figures);
    progress.finish();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    together(ranks.world(), [&] {
        if (!ranks.leader()) return;
        report(a, c, tasks, asked, samples, loaded.path);
        if (!settings.partial.empty()) fs::remove(settings.partial);
    });
    info("evaluated {} questions in {:.1f} s{}{}{}", thousands(figures.asked - figures.taken_over), seconds,
         figures.taken_over ? fmt::format("; {} were answered before", thousands(figures.taken_over)) : "",
         figures.slots.all > 0 ? fmt::format("; {:.1f} % of the slots of batches held tokens", 100 * static_cast<double>(figures.slots.busy) / static_cast<double>(figures.slots.all)) : "", c.out.empty() ? "" : "; results are in " + c.out);
}

}  // namespace

void SuiteArguments::add_to(CLI::App& command) {
    std::string about = "Benchmark suites, with commas between them: ";
    for (const Suite& suite : flanmoe::suites()) about += suite.name + ", ";
    for (const SuiteAverage& average : suite_averages()) about += average.name + ", ";
    const auto list = [&](const char* name, std::vector<std::string>& to, const std::string& text) { return command.add_option(name, to, text)->delimiter(',')->allow_extra_args(false)->group("Suites"); };
    list("--suite", suites, about + "or task files (.toml); mmlu/cot for one mode only");
    command.add_option("--data", settings.data, "Folder of the benchmarks' files")->capture_default_str()->group("Suites");
    list("--only", settings.only, "Only these tasks of the suites (subjects, sub-tasks, languages), with commas");
    command.add_option("--split", settings.split, "Split that is asked: test or validation, if all suites have it; by default each suite's own")->group("Suites");
    command.add_option("--shots", settings.shots, "Exemplars in a prompt; -1 = the suite's own number")->check(CLI::Range(-1, 1000))->capture_default_str()->group("Suites");
    command.add_option("--exemplars", exemplars, "SUITE=FILE: chain-of-thought prompts of mmlu, exemplars of bbh, reasoning or mgsm from this file or folder (repeatable)")->allow_extra_args(false)->group("Suites");
    command.add_option("--exemplar-seed", settings.seed, "Of exemplars that are drawn from a training split")->capture_default_str()->group("Suites");
    command.add_option("--score", score, "What the score is of tasks whose questions have options: generation, likelihood, per_token or per_byte; of others it is what was written")
        ->check(CLI::IsMember({"generation", "likelihood", "per_token", "per_byte"}))->capture_default_str()->group("Suites");
    command.add_option("--too-long", too_long, "Questions too long without any exemplar: fail, or drop (and count)")->check(CLI::IsMember({"fail", "drop"}))->capture_default_str()->group("Suites");
    command.add_option("--held-out", held_out, "Report of flanmoe data mixture --held-out-report: show how many questions of each task the training data holds")->group("Suites");
    command.add_option("--prompts", prompts, "Write the prompts to this file (JSON lines); needs no model")->group("Suites");
    command.add_option("--answers", answers, "Score the answers in this file, {\"id\", \"output\"} a line; needs no model")->group("Suites");
    command.add_option("--missing", missing, "Questions without a line in --answers: fail, or count as wrong")->check(CLI::IsMember({"fail", "wrong"}))->capture_default_str()->group("Suites");
    command.add_flag("--other-prompts", other_prompts, "With --compare: also where the evaluations' prompts differ (other exemplars, say; counted)")->group("Suites");
    command.add_flag("--per-task", per_task, "Print a row a task, too")->group("Suites");
    command.add_option("--compare", compared, "Folders of evaluations: paired differences of each to the first, over the questions in common")->expected(2, 1000000)->group("Suites");
}

void SuiteArguments::refuse_ignored(const CLI::App& command) const {
    const std::vector<std::string> of_files = {"--inputs-key", "--targets-key", "--options-key", "--remove-suffix", "--no-loss"};
    const std::vector<std::string> of_comparison = {"--compare", "--other-prompts", "--per-task"};
    const auto among = [](const std::vector<std::string>& names, const CLI::Option* option) { return std::find(names.begin(), names.end(), option->get_name()) != names.end(); };
    for (const CLI::Option* option : command.get_options()) {
        if (option->count() == 0) continue;
        const bool of_suites = option->get_group() == "Suites";
        if (!compared.empty() && of_suites && !among(of_comparison, option)) fail(Exit::usage, "eval --compare takes folders of results; {} means nothing there, leave it out", option->get_name());
        if (compared.empty() && option->get_name() == "--other-prompts") fail(Exit::usage, "--other-prompts goes with --compare, which is missing");
        if (!wanted() && of_suites) fail(Exit::usage, "{} goes with --suite, which is missing; see flanmoe eval --help", option->get_name());
        if (wanted() && among(of_files, option)) fail(Exit::usage, "{} is for task files in JSON lines, not for suites; leave it out", option->get_name());
    }
}

void run_suite_command(const SuiteArguments& a, const SuiteCommand& c) {
    if (a.score != "generation" && !c.likelihood) fail(Exit::usage, "--score {} needs the likelihood of options, which --no-options leaves out", a.score);
    if (!c.generation && !c.likelihood) fail(Exit::usage, "--no-generation and --no-options leave nothing to score; give one of them");
    if (!c.generation && a.score == "generation" && a.answers.empty() && a.compared.empty())
        fail(Exit::usage, "--no-generation leaves out what --score generation counts; give --score likelihood, per_token or per_byte");
    if (!c.files.empty()) fail(Exit::usage, "eval takes task files or suites, not both at once; '{}' is a task file", c.files[0]);
    if (!a.compared.empty()) {
        refuse_ranks("eval --compare");
        if (!a.suites.empty() || !c.model.checkpoint.empty()) fail(Exit::usage, "eval --compare takes folders of results only; leave out the model and --suite");
        return compare(a, c);
    }
    if (!a.prompts.empty() || !a.answers.empty()) {
        if (!c.model.checkpoint.empty()) fail(Exit::usage, "--prompts and --answers need no model; leave out {}", c.model.checkpoint);
        return without_model(a, c);
    }
    if (c.model.checkpoint.empty()) fail(Exit::usage, "eval --suite needs a model, or --prompts, or --answers; see flanmoe eval --help");
    on_ranks("evaluation", [&] { return c.model.ranks(); }, [&](const RankMesh& ranks) { on_model(a, c, ranks); });
}

}  // namespace flanmoe::cli
