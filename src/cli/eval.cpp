// flanmoe eval: a model on JSONL task files: a table, JSON, and what it made of every example.
#include "cli/commands.hpp"
#include "cli/eval_routing.hpp"
#include "cli/eval_suites.hpp"
#include "cli/model_argument.hpp"
#include "cli/table.hpp"
#include "comm/agreement.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "eval/evaluate.hpp"
#include "eval/report.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>

namespace flanmoe::cli {

namespace {

struct Arguments {
    ModelArgument model;
    std::vector<std::string> files;
    std::string out, malformed = "fail";
    EvalSettings settings;
    RoutingArguments routing;
    SuiteArguments suites;
    bool json = false, table = false, lengths_given = false, inputs_given = false, new_tokens_given = false, no_loss = false, no_generation = false, no_options = false;
};

std::string percent(const std::optional<double>& share) { return share ? fmt::format("{:.1f}", 100 * *share) : "-"; }

// A column of figures, alike for a task and for the mean over tasks.
struct Column {
    const char* name;
    std::function<std::optional<double>(const TaskResult&)> value;
    std::string (*text)(const std::optional<double>&);
    bool only_if_all = false;  ///< left out unless all tasks have the value
};

std::vector<Column> columns_of(const std::vector<TaskResult>& tasks) {
    std::vector<Column> columns = {{"loss", &TaskResult::loss, four_places},
                                   {"exact match", &TaskResult::exact_match, percent},
                                   {"F1", &TaskResult::f1, percent},
                                   {"ROUGE-L", &TaskResult::rouge_l, percent},
                                   {"accuracy", &TaskResult::accuracy, percent},
                                   {"by length", &TaskResult::accuracy_by_length, percent},
                                   {"majority", &TaskResult::majority, percent},
                                   {"Pearson", &TaskResult::pearson, percent, true},
                                   {"Spearman", &TaskResult::spearman, percent, true},
                                   {"F1a", &TaskResult::f1a, percent, true},
                                   {"consistent", &TaskResult::consistency, percent, true}};
    std::erase_if(columns, [&](const Column& c) { return c.only_if_all && !std::all_of(tasks.begin(), tasks.end(), [&](const TaskResult& t) { return c.value(t).has_value(); }); });
    return columns;
}

std::string table_of(const std::vector<TaskResult>& tasks) {
    const std::vector<Column> columns = columns_of(tasks);
    std::vector<std::pair<std::string, Align>> heads = {{"task", Align::left}, {"examples", Align::right}};
    for (const Column& column : columns) heads.emplace_back(column.name, Align::right);
    Table table(heads);
    const auto add = [&](const std::string& name, int64_t examples, auto&& value) {
        std::vector<std::string> cells = {name, thousands(examples)};
        for (const Column& column : columns) cells.push_back(column.text(value(column)));
        table.add(cells);
    };
    int64_t examples = 0;
    for (const TaskResult& t : tasks) {
        add(t.name, static_cast<int64_t>(t.examples.size()), [&](const Column& column) { return column.value(t); });
        examples += static_cast<int64_t>(t.examples.size());
    }
    add(fmt::format("mean of {} task{}", tasks.size(), tasks.size() == 1 ? "" : "s"), examples, [&](const Column& column) { return mean_over_tasks(tasks, column.value); });
    return table.text();
}

void warn_about(const std::vector<TaskResult>& tasks, const EvalSettings& settings) {
    int64_t inputs = 0, targets = 0, unfinished = 0, unanswerable = 0, malformed = 0;
    for (const TaskResult& t : tasks)
        inputs += t.inputs_cut, targets += t.targets_cut, unfinished += t.unfinished, unanswerable += t.unanswerable, malformed += t.malformed;
    if (inputs) warn("{} inputs were longer than {} tokens and lost their end (--max-input-tokens)", thousands(inputs), settings.max_inputs);
    if (targets) warn("{} examples had targets or options longer than {} tokens, which lost their end (--max-target-tokens)", thousands(targets), settings.max_targets);
    if (unfinished) warn("{} answers were cut at {} tokens (--max-new-tokens)", thousands(unfinished), settings.generation.max_new_tokens);
    if (unanswerable) warn("{} examples accept none of their options as an answer; they count as wrong in the accuracy", thousands(unanswerable));
    if (malformed) warn("{} malformed lines were skipped", thousands(malformed));
}

void write_results(const std::filesystem::path& folder, const std::vector<TaskResult>& tasks, const std::string& summary) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) fail(Exit::cannot_create, "cannot create the folder {}: {}; check the path and its permissions", folder.string(), error.message());
    std::string answers;
    for (const TaskResult& task : tasks) answers += answers_jsonl(task);
    write_file_atomically(folder / "answers.jsonl", answers);
    write_file_atomically(folder / "summary.json", summary);
    write_file_atomically(folder / "table.txt", table_of(tasks));
}

void report(const Arguments& a, const std::vector<TaskResult>& tasks, const std::string& model) {
    const std::string summary = summary_json(tasks, model);
    if (!a.out.empty()) write_results(a.out, tasks, summary);
    if (a.json) fmt::print("{}", summary);
    if (a.table || !a.json) fmt::print("{}", table_of(tasks));
    std::fflush(stdout);
    warn_about(tasks, a.settings);
}

void evaluate_rank(const Arguments& a, const RankMesh& ranks) {
    LoadedModel loaded;
    together(ranks.world(), [&] { loaded = a.model.load(ranks.context(), ranks.mesh()); });
    const auto start = std::chrono::steady_clock::now();
    Progress progress("evaluating");
    EvalSettings settings = a.settings;
    if (ranks.leader()) settings.progress = [&](double fraction, const std::string& note) { progress.update(fraction, note); };
    const std::vector<TaskResult> tasks = evaluate_files(ranks.context(), *loaded.model, *loaded.tokenizer, a.files, settings);
    progress.finish();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    together(ranks.world(), [&] {
        if (ranks.leader()) report(a, tasks, loaded.path);
    });
    info("evaluated in {:.1f} s{}{}", seconds, ranks.world().size() == 1 ? "" : fmt::format(" on {} ranks, {}", ranks.world().size(), ranks.mesh().shape().text()),
         a.out.empty() ? "" : "; results are in " + a.out);
}

void run(Arguments& a) {
    a.settings.malformed = a.malformed == "skip" ? MalformedPolicy::skip : MalformedPolicy::fail;
    if (a.suites.wanted()) {
        if (a.routing.trace) fail(Exit::usage, "eval --routing-trace goes through task files, not suites; leave one of them out");
        run_suite_command(a.suites, {a.model, a.files, a.settings, a.inputs_given, a.new_tokens_given, !a.no_generation, !a.no_options, a.json, a.table, a.out});
        return;
    }
    if (a.files.empty() || a.model.checkpoint.empty()) fail(Exit::usage, "eval: a model and task files, or --suite, are missing; see flanmoe eval --help");
    a.settings.loss = !a.no_loss, a.settings.generate = !a.no_generation, a.settings.options = !a.no_options;
    if (a.routing.trace) refuse_ranks("a routing trace");
    on_ranks("evaluation", [&] { return a.model.ranks(); }, [&](const RankMesh& ranks) {
        if (a.routing.trace) run_routing_trace(a.routing, {a.model, a.files, a.settings, a.lengths_given, a.json, a.table, a.out});
        else evaluate_rank(a, ranks);
    });
}

}  // namespace

void add_eval(CLI::App& program) {
    auto a = std::make_shared<Arguments>();
    EvalSettings& s = a->settings;
    CLI::App& command = *program.add_subcommand("eval", "Evaluate a model on benchmark suites, or on JSONL task files: loss, exact match, F1, ROUGE-L, and accuracy by scoring given options");
    a->model.add_to(command);
    command.get_option("CHECKPOINT")->required(false);
    command.add_option("FILES", a->files, "JSONL task files, and folders of them: every file is a task");
    command.add_option("--out", a->out, "Folder for answers.jsonl (every example), summary.json and table.txt; of a trace routing.json and routing.txt");
    command.add_option("--batch", s.batch.rows, "Most examples computed together, by one rank")->check(CLI::Range(1, 1000000))->capture_default_str();
    command.add_option("--batch-tokens", s.batch.tokens, "Most input tokens computed together, padding included")->check(CLI::Range(1, 1000000000))->capture_default_str();
    CLI::Option* new_tokens = command.add_option("--max-new-tokens", s.generation.max_new_tokens, "Tokens after which an answer is cut")->check(CLI::Range(1, 1000000))->capture_default_str();
    CLI::Option* inputs = command.add_option("--max-input-tokens", s.max_inputs, "Longer inputs lose their end (end mark included)")->check(CLI::Range(1, 1000000))->capture_default_str();
    CLI::Option* targets = command.add_option("--max-target-tokens", s.max_targets, "Longer targets and options lose their end")->check(CLI::Range(1, 1000000))->capture_default_str();
    command.add_option("--beams", s.generation.beams, "Beams of the search; 1 = greedy")->check(CLI::Range(1, 1000000))->capture_default_str();
    command.add_option("--length-penalty", s.generation.length_penalty, "With beams: scores are divided by length to this power")->capture_default_str();
    command.add_option("--limit", s.limit, "Only so many examples of each file, the first ones; 0 = all")->check(CLI::Range(0, 1000000000))->capture_default_str();
    command.add_option("--inputs-key", s.keys.inputs, "Field of the inputs; may be repeated: the first that a line has")->allow_extra_args(false)->capture_default_str();
    command.add_option("--targets-key", s.keys.targets, "Field of the targets; the same")->allow_extra_args(false)->capture_default_str();
    command.add_option("--options-key", s.keys.options, "Field of the options to choose from")->capture_default_str();
    command.add_option("--remove-suffix", s.keys.remove_suffix, "Cut this from the end of every target and option");
    command.add_option("--malformed", a->malformed, "Malformed lines: fail, or skip (and count)")->check(CLI::IsMember({"fail", "skip"}))->capture_default_str();
    command.add_flag("--continue", a->settings.open_inputs, "Inputs are texts to go on with: no end mark after them, as a decoder-only language model expects before instruction tuning");
    command.add_flag("--no-loss", a->no_loss, "Leave out the loss");
    command.add_flag("--no-generation", a->no_generation, "Leave out what needs generated answers");
    command.add_flag("--no-options", a->no_options, "Leave out the scoring of options");
    a->routing.add_to(command);
    a->suites.add_to(command);
    command.add_flag("--json", a->json, "Print the summary as JSON instead of the table");
    command.add_flag("--table", a->table, "Print the table too, with --json");
    command.footer("Examples:\n  flanmoe eval runs/base toyworld/seen --out results\n  flanmoe eval runs/instruct --suite mmlu,bbh --data benchmarks --out results\n  flanmoe eval runs/instruct toyworld/seen --routing-trace --routing-drift runs/pretrain --out routing\n"
                   "  mpirun -n 4 flanmoe eval runs/base toyworld/seen --set parallel.expert=2 --out results      # the same results from four ranks, 2 data x 2 expert\n\n"
                   "Loss: mean negative log-likelihood of a token of the first accepted answer. Exact match and F1: SQuAD's normalisation, best over the accepted answers.\n"
                   "Accuracy: the most probable option is an accepted answer; \"by length\": most probable per token. Majority: exact match of the file's most frequent answer.\n"
                   "Pearson, Spearman: where all targets are numbers; an answer that is none counts as -1. Consistent: groups of lines of the same \"group\" all of which match exactly.\n\n"
                   "A routing trace shows for every sparse layer: utilization (pairs kept / slots), load of the busiest expert over the mean, experts without load, tokens that no expert takes\n"
                   "(all, and by class), dropped choices after the first, mean gate, entropy of the router, and how far a token's identity or its task decides its expert (information / entropy);\n"
                   "for every expert its load, its typical tokens and the tasks that most of them come from. Dropout and jitter are off; --routing-capacity says which slots there are.");
    command.callback([a, inputs, targets, new_tokens, &command] {
        a->new_tokens_given = new_tokens->count() > 0;
        a->inputs_given = inputs->count() > 0;
        a->lengths_given = a->inputs_given || targets->count() > 0;
        a->suites.refuse_ignored(command);
        run(*a);
    });
}

}  // namespace flanmoe::cli
