// `flanmoe data mixture`: what a mixture trains on: exact shares, tokens, truncation, epochs, and examples as the model sees them.
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/processor_time.hpp"
#include "data/mixture_source.hpp"
#include "data/rows.hpp"

#include <CLI/CLI.hpp>

#include <map>
#include <memory>

namespace flanmoe::cli {

namespace {

struct Arguments {
    DataConfig data;
    std::string tokenizer;
    int64_t steps = 0, count = 0, measured_rows = 200;
};

/// What the first places of the stream hold, for one task.
struct Seen {
    int64_t examples = 0, few_shot = 0, shots = 0, dropped_shots = 0, cut = 0, input_tokens = 0, target_tokens = 0;
};

double per(double part, int64_t whole) { return whole ? part / static_cast<double>(whole) : 0.0; }

// Draws as many places as make up the first packed rows: what a row holds on average, by task.
std::vector<Seen> look(const OpenMixture& mixture, Mixture& order, int64_t draws) {
    std::vector<Seen> seen(mixture.sources.size());
    Example example;
    for (int64_t i = 0; i < draws; ++i) {
        const Mixture::Place place = order.at(i);
        const MixtureSource& source = *mixture.sources[place.source];
        const MixtureSource::Draw d = source.draw(place.pass, place.slot);
        source.get(place.pass, place.slot, example);
        Seen& s = seen[place.source];
        ++s.examples;
        s.few_shot += !d.exemplars.empty();
        s.shots += static_cast<int64_t>(d.exemplars.size());
        s.dropped_shots += static_cast<int64_t>(d.dropped);
        s.cut += d.cut;
        s.input_tokens += static_cast<int64_t>(example.inputs.size());
        s.target_tokens += static_cast<int64_t>(example.targets.size());
    }
    return seen;
}

void print_examples(const OpenMixture& mixture, Mixture& order, const Tokenizer& tokenizer, int64_t count) {
    Example example;
    for (int64_t i = 0; i < count; ++i) {
        const Mixture::Place place = order.at(i);
        const MixtureSource& source = *mixture.sources[place.source];
        const MixtureSource::Draw d = source.draw(place.pass, place.slot);
        source.get(place.pass, place.slot, example);
        fmt::print("--- place {}: {}, record {}, template '{}', {} exemplars ({} dropped)\n{}\n=> {}\n", i, source.task().task->name, d.record + 1,
                   source.task().task->templates[source.tokens().ways()[d.way].index].name, d.exemplars.size(), d.dropped, tokenizer.decode(example.inputs), tokenizer.decode(example.targets));
    }
}

void print_tasks(const OpenMixture& mixture, const std::vector<Seen>& seen, double examples_given) {
    const bool epochs = examples_given > 0;
    std::vector<std::pair<std::string, Align>> columns = {{"task", Align::left}, {"part", Align::left}, {"language", Align::left}, {"records", Align::right}, {"share %", Align::right},
                                                          {"inputs", Align::right}, {"targets", Align::right}, {"cut %", Align::right}, {"long inputs", Align::right},
                                                          {"long targets", Align::right}, {"left out", Align::right}, {"shots", Align::right}, {"dropped", Align::right}};
    if (epochs) columns.push_back({"epochs", Align::right});
    Table table(columns);
    for (size_t i = 0; i < mixture.sources.size(); ++i) {
        const MixtureSource& source = *mixture.sources[i];
        const SourceCounts& counts = source.counts();
        const Seen& s = seen[i];
        std::vector<std::string> cells = {source.task().task->name, source.task().part, source.task().task->language, thousands(source.size()), fmt::format("{:.6f}", 100 * mixture.rates[i]),
                                          fmt::format("{:.1f}", per(static_cast<double>(s.input_tokens), s.examples)), fmt::format("{:.1f}", per(static_cast<double>(s.target_tokens), s.examples)),
                                          fmt::format("{:.1f}", 100 * per(static_cast<double>(s.cut), s.examples)), thousands(counts.truncated_inputs), thousands(counts.truncated_targets),
                                          thousands(source.tokens().records() - source.size() + counts.malformed), fmt::format("{:.2f}", per(static_cast<double>(s.shots), s.examples)),
                                          thousands(s.dropped_shots)};
        if (epochs) cells.push_back(fmt::format("{:.2f}", per(examples_given * mixture.rates[i], source.size())));
        table.add(cells);
    }
    fmt::print("{}", table.text());
}

void print_parts(const OpenMixture& mixture, const std::vector<Seen>& seen) {
    struct Sum {
        int64_t tasks = 0, records = 0;
        double rate = 0;
    };
    std::map<std::string, Sum> parts, languages;
    int64_t examples = 0, inputs = 0, targets = 0, few_shot = 0, records = 0;
    for (size_t i = 0; i < mixture.sources.size(); ++i) {
        for (Sum* sum : {&parts[mixture.sources[i]->task().part], &languages[mixture.sources[i]->task().task->language]}) {
            ++sum->tasks;
            sum->records += mixture.sources[i]->size();
            sum->rate += mixture.rates[i];
        }
        examples += seen[i].examples, inputs += seen[i].input_tokens, targets += seen[i].target_tokens, few_shot += seen[i].few_shot, records += mixture.sources[i]->size();
    }
    for (const auto& [title, sums] : {std::pair{"part", &parts}, {"language", &languages}}) {
        Table table({{title, Align::left}, {"tasks", Align::right}, {"records", Align::right}, {"share %", Align::right}});
        for (const auto& [name, sum] : *sums) table.add({name.empty() ? "(all)" : name, thousands(sum.tasks), thousands(sum.records), fmt::format("{:.6f}", 100 * sum.rate)});
        fmt::print("\n{}", table.text());
    }
    fmt::print("\n{} tasks, {} records; of the first {} examples {:.1f} % few-shot, {:.1f} input and {:.1f} target tokens on average\n", thousands(static_cast<int64_t>(mixture.sources.size())),
               thousands(records), thousands(examples), 100 * per(static_cast<double>(few_shot), examples), per(static_cast<double>(inputs), examples), per(static_cast<double>(targets), examples));
}

void print_overlaps(const Overlaps& overlaps) {
    if (overlaps.items.empty()) return;
    if (!overlaps.missing.empty()) fmt::print("\n{} files of held-out tasks are not there and were not compared: {}\n", overlaps.missing.size(), fmt::join(overlaps.missing, ", "));
    Table items({{"held out", Align::left}, {"items", Align::right}, {"too short", Align::right}, {"exact", Align::right}, {"by n-gram", Align::right}});
    int64_t clean = 0, too_short = 0, malformed = 0, apart = 0, akin = 0;
    for (const Overlaps::Items& task : overlaps.items) {
        too_short += task.too_short, malformed += task.malformed, akin += !task.kin.empty();
        if (task.exact + task.ngram > 0)
            items.add({task.task, thousands(task.items), thousands(task.too_short), thousands(task.exact), thousands(task.ngram)});
        else
            ++(task.compared() ? clean : apart);
    }
    fmt::print("\nheld out: {} items are too short or have no text to compare, {} are malformed; {} tasks have nothing to compare; {} are derived from the same source as a task that is trained on\n", thousands(too_short),
               thousands(malformed), thousands(apart), thousands(akin));
    Table pairs({{"trained on", Align::left}, {"held out", Align::left}, {"exact", Align::right}, {"by n-gram", Align::right}, {"as", Align::left}});
    for (const Overlaps::Pair& pair : overlaps.pairs) pairs.add({pair.trained, pair.held_out, thousands(pair.exact), thousands(pair.ngram), pair.record + " and " + pair.item});
    fmt::print("\n{}{} held-out tasks do not occur\n\n{}{} records of the mixture overlap\n", items.text(), clean, pairs.text(), thousands(overlaps.found()));
}

void show(const Arguments& a) {
    const auto tokenizer = Tokenizer::load(a.tokenizer);
    const DataConfig config = resolve_data_config(a.data, *tokenizer);
    const OpenMixture mixture = open_mixture(config, *tokenizer, true);
    if (!config.held_out_report.empty() && mixture.file.held_out.tasks.empty())
        fail(Exit::usage, "--held-out-report {}: {} holds nothing out; add [held_out] with tasks", config.held_out_report, config.mixture);
    int64_t cached = 0, made = 0;
    double made_seconds = 0;
    SourceCounts counts;
    std::vector<int64_t> sizes;
    for (const auto& source : mixture.sources) {
        sizes.push_back(source->size());
        counts += source->counts();
        cached += source->tokens().from_cache();
        if (source->tokens().made_seconds() > 0) made += source->tokens().tokens();
        made_seconds += source->tokens().made_seconds();
    }
    // What a packed row holds decides how many examples a step has.
    RowStream rows(mixture, config, true);
    Row row;
    const double begin = thread_seconds();
    for (int64_t r = 0; r < a.measured_rows; ++r) rows.next(row);
    const double seconds = thread_seconds() - begin;
    const double a_row = per(static_cast<double>(rows.counts().examples), a.measured_rows);
    const double given = static_cast<double>(a.steps * config.batch_rows) * a_row;
    Mixture order(sizes, mixture.rates, 0, config.seed, config.shuffle, int64_t{1} << 20);
    const std::vector<Seen> seen = look(mixture, order, 20000);
    print_tasks(mixture, seen, given);
    print_parts(mixture, seen);
    print_overlaps(mixture.overlaps);
    fmt::print("left out: {} malformed records, {} with nothing to ask, {} too long in every way, {} that hold held-out items\n", thousands(counts.malformed), thousands(counts.unasked),
               thousands(counts.dropped), thousands(counts.held_out));
    fmt::print("{} of {} tasks from the cache; {:.1f} examples a row of {} + {} tokens, {:.1f} % of them used; {:.2f} M tokens/s to rows on one core\n", cached,
               mixture.sources.size(), a_row, config.encoder_length, config.decoder_length,
               100 * static_cast<double>(rows.counts().input_tokens + rows.counts().target_tokens) / static_cast<double>(a.measured_rows * (config.encoder_length + config.decoder_length)),
               static_cast<double>(rows.counts().input_tokens + rows.counts().target_tokens) * 1e-6 / seconds);
    if (made_seconds > 0) fmt::print("{} tokens from raw text in {:.1f} s of processor time, {:.0f} a second and core\n", thousands(made), made_seconds, static_cast<double>(made) / made_seconds);
    if (a.steps > 0) fmt::print("{} steps of {} rows: {:.0f} examples\n", thousands(a.steps), config.batch_rows, given);
    print_examples(mixture, order, *tokenizer, a.count);
}

}  // namespace

void add_data_mixture(CLI::App& data_command) {
    const auto a = std::make_shared<Arguments>();
    a->data.objective = Objective::instruct;
    a->data.encoder_length = 2048;
    a->data.decoder_length = 512;
    a->data.batch_rows = 64;
    a->data.prefetch = 0;
    CLI::App* command = data_command.add_subcommand("mixture", "Shares, tokens, truncation and epochs of a mixture of tasks; examples as the model sees them");
    command->add_option("FILE", a->data.mixture, "Mixture (.toml)")->required();
    command->add_option("--data", a->data.folder, "Folder that paths of tasks are relative to");
    command->add_option("--tokenizer", a->tokenizer, "spiece.model, or a folder that holds it")->required();
    command->add_option("--cache", a->data.cache, "Folder that keeps the tokens");
    command->add_option("--tasks", a->data.tasks, "Only so many tasks, as data.tasks chooses them");
    command->add_option("--tasks-seed", a->data.tasks_seed, "Which ones");
    command->add_option("--encoder-length", a->data.encoder_length, "Tokens of inputs, end mark included")->capture_default_str();
    command->add_option("--decoder-length", a->data.decoder_length, "Tokens of targets")->capture_default_str();
    command->add_option("--batch-rows", a->data.batch_rows, "Rows of a step")->capture_default_str();
    command->add_option("--steps", a->steps, "Also print how often each task is gone through in so many steps");
    command->add_option("--held-out-report", a->data.held_out_report, "Write which held-out items the mixture holds (JSON), for flanmoe eval --held-out; also where the policy refuses them");
    command->add_option("--rows", a->measured_rows, "Make so many packed rows to measure what one holds, and the speed")->check(above_zero)->capture_default_str();
    command->add_option("--count", a->count, "Print so many examples");
    command->add_option("--seed", a->data.seed, "Of the stream")->check(not_negative)->capture_default_str();
    command->footer("Example:\n  flanmoe data mixture configs/mixture/flan-a.toml --data data-folder --tokenizer vocabulary --steps 100000 --count 3");
    command->callback([a] { show(*a); });
}

}  // namespace flanmoe::cli
