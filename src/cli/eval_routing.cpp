// Tables of a routing trace, and where its data settings come from.
#include "cli/eval_routing.hpp"

#include "cli/table.hpp"
#include "config/config.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "eval/routing_report.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>

namespace flanmoe::cli {

namespace {

namespace fs = std::filesystem;

constexpr size_t listed = 20, per_expert = 6;  // tokens in the tables
constexpr size_t most_expert_rows = 128;       // beyond it the experts' tokens are in the JSON alone

std::string percent(double share) { return fmt::format("{:.1f}", 100 * share); }
std::string percent_or_none(const Part& part) { return part.of > 0 ? percent(part.share()) : "-"; }
std::string layer_name(bool decoder, int block) { return fmt::format("{} {}", decoder ? "decoder" : "encoder", block); }

// Blanks show as in the vocabulary; what a terminal cannot show is spelt out.
std::string shown(const std::string& piece) {
    std::string text;
    for (const char c : piece) text += static_cast<unsigned char>(c) < 0x20 ? fmt::format("\\x{:02x}", static_cast<unsigned char>(c)) : std::string(1, c);
    return text;
}

std::string layers_text(const RoutingTrace& trace) {
    Table table({{"layer", Align::left}, {"tokens", Align::right}, {"utilization %", Align::right}, {"busiest", Align::right}, {"idle", Align::right}, {"dropped %", Align::right},
                 {"formatting", Align::right}, {"special", Align::right}, {"stop word", Align::right}, {"other", Align::right}, {"later %", Align::right}, {"confidence", Align::right},
                 {"entropy", Align::right}, {"by token %", Align::right}, {"by task %", Align::right}});
    for (const LayerCounts& layer : trace.layers) {
        const LayerFigures f = figures(layer, trace.classes);
        const Part dropped = sum(f.dropped);
        std::vector<std::string> row = {layer_name(layer.decoder, layer.block), thousands(dropped.of), f.utilization ? percent(*f.utilization) : "-", fmt::format("{:.2f}", f.busiest),
                                        fmt::format("{}", f.idle), percent_or_none(dropped)};
        for (const Part& part : f.dropped) row.push_back(percent_or_none(part));
        row.insert(row.end(), {f.later_dropped ? percent(*f.later_dropped) : "-", fmt::format("{:.3f}", f.confidence), fmt::format("{:.3f}", f.entropy), percent(f.of_tokens.share()),
                               trace.tasks.size() > 1 ? percent(f.of_tasks.share()) : "-"});
        table.add(row);
    }
    return table.text();
}

std::string dropped_text(const RoutingTrace& trace, const Tokenizer& tokenizer) {
    Table table({{"most often dropped", Align::left}, {"token", Align::left}, {"class", Align::left}, {"dropped", Align::right}, {"of", Align::right}, {"%", Align::right}});
    bool any = false;
    for (const bool decoder : {false, true}) {
        std::vector<int64_t> seen(trace.classes.size()), dropped(trace.classes.size());
        for (const LayerCounts& layer : trace.layers) {
            if (layer.decoder != decoder) continue;
            for (size_t id = 0; id < seen.size(); ++id) seen[id] += layer.seen[id], dropped[id] += layer.dropped[id];
        }
        for (const TokenCount& t : most_dropped(seen, dropped, listed)) {
            any = true;
            table.add({decoder ? "decoder" : "encoder", shown(tokenizer.piece(t.id)), token_class_names[static_cast<size_t>(trace.classes[static_cast<size_t>(t.id)])], thousands(t.count),
                       thousands(t.of), percent(Part{t.count, t.of}.share())});
        }
    }
    return any ? table.text() : "no token is dropped\n";
}

// The two tasks that send most of an expert's pairs.
std::string main_tasks(const RoutingTrace& trace, const LayerCounts& layer, int64_t expert) {
    std::vector<std::pair<int64_t, size_t>> ranked;
    for (size_t t = 0; t < trace.tasks.size(); ++t)
        if (const int64_t pairs = layer.by_task[t * static_cast<size_t>(layer.experts) + static_cast<size_t>(expert)]; pairs > 0) ranked.emplace_back(-pairs, t);
    std::sort(ranked.begin(), ranked.end());
    std::string text;
    for (size_t i = 0; i < std::min<size_t>(2, ranked.size()); ++i)
        text += fmt::format("{}{} {} %", i ? ", " : "", trace.tasks[ranked[i].second], percent(Part{-ranked[i].first, layer.load[static_cast<size_t>(expert)]}.share()));
    return text;
}

std::string experts_text(const RoutingTrace& trace, const Tokenizer& tokenizer) {
    size_t rows = 0;
    for (const LayerCounts& layer : trace.layers) rows += static_cast<size_t>(layer.experts);
    if (rows > most_expert_rows) return fmt::format("the {} experts' tokens and tasks are in the JSON (--json, --out)\n", rows);
    Table table({{"expert", Align::left}, {"load %", Align::right}, {"used %", Align::right}, {"typical tokens", Align::left}, {"most from", Align::left}});
    for (const LayerCounts& layer : trace.layers) {
        const LayerFigures f = figures(layer, trace.classes);
        const int64_t pairs = std::accumulate(layer.load.begin(), layer.load.end(), int64_t{0});
        for (int64_t e = 0; e < layer.experts; ++e) {
            std::string tokens;
            for (const TokenCount& t : typical_tokens(layer, e, per_expert)) tokens += (tokens.empty() ? "" : " ") + shown(tokenizer.piece(t.id));
            table.add({fmt::format("{}.{}", layer_name(layer.decoder, layer.block), e), percent(Part{layer.load[static_cast<size_t>(e)], pairs}.share()),
                       f.utilization_by_expert.empty() ? "-" : percent(f.utilization_by_expert[static_cast<size_t>(e)]), tokens, main_tasks(trace, layer, e)});
        }
    }
    return table.text();
}

std::string drift_text(const RoutingTrace& trace) {
    Table table({{"drift", Align::left}, {"tokens", Align::right}, {"other experts %", Align::right}, {"formatting", Align::right}, {"special", Align::right}, {"stop word", Align::right},
                 {"other", Align::right}, {"taken by others %", Align::right}});
    for (const LayerDrift& drift : trace.drift) {
        const Parts wanted = changed(drift.wanted, drift.tokens);
        const Part all = sum(wanted);
        std::vector<std::string> row = {layer_name(drift.decoder, drift.block), thousands(all.of), percent_or_none(all)};
        for (const Part& part : wanted) row.push_back(percent_or_none(part));
        row.push_back(percent_or_none(sum(changed(drift.kept, drift.tokens))));
        table.add(row);
    }
    return table.text();
}

std::string text_of(const RoutingTrace& trace, const Tokenizer& tokenizer) {
    std::string text = fmt::format("{} rows, {} encoder and {} decoder tokens; capacity of {}\n\n{}\n{}\n{}", thousands(trace.rows), thousands(trace.encoder_tokens),
                                   thousands(trace.decoder_tokens), trace.capacity, layers_text(trace), experts_text(trace, tokenizer), dropped_text(trace, tokenizer));
    return trace.drift.empty() ? text : text + "\n" + drift_text(trace);
}

// How rows are made: as the checkpoint was trained, where it says so; but single examples have the lengths of evaluation, and those of the command line win.
DataConfig data_config(const LoadedModel& loaded, const std::vector<std::string>& files, const EvalSettings& settings, bool lengths_given, TraceCapacity capacity) {
    DataConfig data;
    bool trained_lengths = false;
    const bool shards = std::any_of(files.begin(), files.end(), is_shard_folder);
    const fs::path file = fs::path(loaded.path) / "training" / "config.toml";
    if (fs::exists(file)) {
        data = parse_config(read_file(file), file.string(), false).data;
        const bool like_data = shards == (data.objective != Objective::instruct);
        trained_lengths = !lengths_given && like_data && (shards || capacity == TraceCapacity::training);
    }
    if (!trained_lengths) {
        const bool both = loaded.model->config().encoder_decoder;
        data.encoder_length = both ? settings.max_inputs : 0;
        data.decoder_length = !both ? settings.max_inputs + settings.max_targets : shards ? 0 : settings.max_targets;  // 0: what the inputs need
    }
    data.inputs_keys = settings.keys.inputs, data.targets_keys = settings.keys.targets;
    data.options_key = settings.keys.options, data.task_key = settings.keys.task, data.remove_suffix = settings.keys.remove_suffix;
    data.malformed = settings.malformed;
    return data;
}

void warn_about(const RoutingTrace& trace) {
    const SourceCounts& found = trace.found;
    if (found.truncated_inputs || found.truncated_targets)
        warn("{} inputs and {} targets were longer than a row and cut (--max-input-tokens, --max-target-tokens)", thousands(found.truncated_inputs), thousands(found.truncated_targets));
    if (found.dropped) warn("{} examples were too long and left out (data.truncation of the checkpoint)", thousands(found.dropped));
    if (found.malformed) warn("{} malformed lines were skipped", thousands(found.malformed));
}

}  // namespace

void RoutingArguments::add_to(CLI::App& command) {
    CLI::Option* flag = command.add_flag("--routing-trace", trace, "Trace the routers instead of evaluating answers; FILES may then be folders of token shards");
    command.add_option("--routing-capacity", capacity, "Capacity of the trace: evaluation, training (rows packed as in training), or none")
        ->check(CLI::IsMember({"evaluation", "training", "none"}))
        ->capture_default_str()
        ->needs(flag);
    command.add_option("--routing-drift", other, "Another checkpoint of the model: share of tokens that it sends to other experts")->needs(flag);
    command.add_flag("--routing-dump", dump, "Write every token's experts and gates to routing.jsonl in the folder of --out")->needs(flag);
}

void run_routing_trace(const RoutingArguments& arguments, const RoutingRun& run) {
    if (arguments.dump && run.out.empty()) fail(Exit::usage, "--routing-dump writes into the folder of --out; name one");
    DeviceContext context = run.model.open();
    const LoadedModel loaded = run.model.load(context);
    LoadedModel other;
    if (!arguments.other.empty()) {
        ModelArgument second = run.model;
        second.checkpoint = arguments.other;
        other = second.load(context);
        if (other.tokenizer->hash() != loaded.tokenizer->hash()) fail(Exit::usage, "{} and {} have different vocabularies; give two checkpoints of one model", loaded.path, other.path);
    }
    TraceSettings settings;
    settings.capacity = arguments.capacity == "training" ? TraceCapacity::training : arguments.capacity == "none" ? TraceCapacity::none : TraceCapacity::evaluation;
    settings.data = data_config(loaded, run.files, run.settings, run.lengths_given, settings.capacity);
    settings.batch = run.settings.batch;
    settings.limit = run.settings.limit;
    Progress progress("tracing");
    settings.progress = [&](double fraction) { progress.update(fraction, "routing"); };
    const fs::path folder = run.out;
    std::ofstream dump;
    if (std::error_code error; !run.out.empty() && (fs::create_directories(folder, error), error))
        fail(Exit::cannot_create, "cannot create the folder {}: {}; check the path and its permissions", run.out, error.message());
    if (arguments.dump) {
        dump.open(folder / "routing.jsonl", std::ios::binary | std::ios::trunc);
        settings.dump = [&](std::string_view line) { dump << line; };
    }
    const RoutingTrace trace = trace_routing(context, *loaded.model, other.model.get(), *loaded.tokenizer, run.files, settings);
    progress.finish();
    if (arguments.dump) {
        dump.close();
        if (!dump) fail(Exit::io, "{} could not be written whole; free some space or choose another folder", (folder / "routing.jsonl").string());
    }
    const std::string json = routing_json(trace, *loaded.tokenizer, loaded.path, other.path), text = text_of(trace, *loaded.tokenizer);
    if (!run.out.empty()) write_file_atomically(folder / "routing.json", json), write_file_atomically(folder / "routing.txt", text);
    if (run.json) fmt::print("{}", json);
    if (run.table || !run.json) fmt::print("{}", text);
    std::fflush(stdout);
    warn_about(trace);
}

}  // namespace flanmoe::cli
