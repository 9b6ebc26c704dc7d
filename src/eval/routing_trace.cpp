#include "eval/routing_trace.hpp"

#include "core/error.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace flanmoe {

namespace {

Pass pass_of(Context& context, const Transformer& model, TraceCapacity capacity) {
    Pass pass = evaluation_pass(context, model);
    pass.route_rows_alone = capacity != TraceCapacity::training;
    pass.training_capacity = capacity == TraceCapacity::training;
    pass.no_drop = capacity == TraceCapacity::none;
    return pass;
}

std::string rule_in_words(const RoutingConfig& routing, int64_t experts, TraceCapacity capacity) {
    const bool training = capacity == TraceCapacity::training;
    const ops::RouteRule rule = rule_of(routing, training);
    const bool choice = rule.kind == RouterKind::expert_choice;
    const std::string asks = choice ? "experts choose" : fmt::format("tokens {} {}", rule.kind == RouterKind::balanced ? "go round" : "ask for", rule.k);
    if (rule.dropless || (!choice && capacity == TraceCapacity::none)) return asks + ", no limit on slots";
    const std::string group = !training || routing.group_rows == 1 ? "a row" : routing.group_rows == 0 ? "the batch" : fmt::format("{} rows", routing.group_rows);
    if (rule.fixed_capacity > 0) return fmt::format("{}, {} slots an expert in {}", asks, rule.fixed_capacity, group);
    return fmt::format("{}, max({}, round({} x tokens / {})) slots an expert in {}", asks, rule.min_capacity, rule.capacity_factor, experts, group);
}

std::string capacity_in_words(const ModelConfig& config, TraceCapacity capacity, bool packed) {
    constexpr const char* names[] = {"evaluation", "training", "no limit"};
    std::string text = fmt::format("{} ({})", names[static_cast<size_t>(capacity)], packed ? "examples packed into full rows" : "one example a row");
    if (!config.encoder_sparse.empty()) text += "; encoder: " + rule_in_words(config.encoder_routing, config.experts, capacity);
    if (!config.decoder_sparse.empty()) text += "; decoder: " + rule_in_words(config.decoder_routing, config.experts, capacity);
    return text;
}

// Rows that a batch must hold in whole groups, for both stacks.
int64_t group_rows_of(const ModelConfig& config, TraceCapacity capacity) {
    if (capacity != TraceCapacity::training) return 1;
    const int64_t encoder = config.encoder_sparse.empty() ? 1 : config.encoder_routing.group_rows, decoder = config.decoder_sparse.empty() ? 1 : config.decoder_routing.group_rows;
    return encoder == 0 || decoder == 0 ? 0 : std::lcm(encoder, decoder);
}

void check_comparable(const ModelConfig& a, const ModelConfig& b) {
    const bool same = a.encoder_decoder == b.encoder_decoder && a.experts == b.experts && a.encoder_sparse == b.encoder_sparse && a.decoder_sparse == b.decoder_sparse &&
                      a.vocab_size == b.vocab_size;
    if (!same) fail(Exit::usage, "the two models differ in stacks, vocabulary, experts or sparse layers, so their routing cannot be compared; give two checkpoints of one model");
}

class Tracer {
public:
    Tracer(Context& context, const Transformer& model, const Transformer* other, const TraceSettings& settings, RoutingTrace& trace)
        : context_(context), model_(model), other_(other), settings_(settings), trace_(trace) {}

    void add(const TracedBatch& traced) {
        const Arena::Scope scope(context_.arena);
        TransformerSaved saved, saved_other;
        Pass pass = pass_of(context_, model_, settings_.capacity);
        model_.forward(pass, traced.batch, saved);
        if (other_) {
            Pass pass_other = pass_of(context_, *other_, settings_.capacity);
            other_->forward(pass_other, traced.batch, saved_other);
        }
        const std::vector<RoutedLayer> layers = model_.routed_layers(saved), others = other_ ? other_->routed_layers(saved_other) : std::vector<RoutedLayer>();
        const std::vector<int32_t> tasks[] = {traced.tasks_of(traced.batch.encoder_segments), traced.tasks_of(traced.batch.decoder_segments)};
        const ModelConfig& config = model_.config();
        std::vector<RoutingView> views;
        for (size_t l = 0; l < layers.size(); ++l) {
            const RoutedLayer& layer = layers[l];
            const std::vector<int32_t>& ids = layer.decoder ? traced.batch.decoder_ids : traced.batch.encoder_ids;
            if (trace_.layers.size() == l) trace_.layers.emplace_back(layer.decoder, layer.block, config.experts, config.vocab_size, static_cast<int64_t>(trace_.tasks.size()));
            views.emplace_back(*layer.route, context_);
            trace_.layers[l].add(*layer.route, views[l], ids, tasks[layer.decoder]);
            if (!other_) continue;
            if (trace_.drift.size() == l) trace_.drift.push_back({.decoder = layer.decoder, .block = layer.block});
            trace_.drift[l].add(views[l], RoutingView(*others[l].route, context_), ids, trace_.classes);
        }
        count(traced);
        if (settings_.dump) dump(traced, layers, views);
    }

private:
    void count(const TracedBatch& traced) {
        for (const auto& of_row : traced.tasks) trace_.rows += !of_row.empty(), trace_.examples += static_cast<int64_t>(of_row.size());
        for (const int32_t s : traced.batch.encoder_segments) trace_.encoder_tokens += s != 0;
        for (const int32_t s : traced.batch.decoder_segments) trace_.decoder_tokens += s != 0;
    }

    // One line for each row and stack: ids, tasks, and for every sparse layer what each token asked for and got.
    void dump(const TracedBatch& traced, const std::vector<RoutedLayer>& layers, const std::vector<RoutingView>& views) const {
        using Json = nlohmann::ordered_json;
        for (const bool decoder : {false, true}) {
            const std::vector<int32_t>& ids = decoder ? traced.batch.decoder_ids : traced.batch.encoder_ids;
            const std::vector<int32_t>& segments = decoder ? traced.batch.decoder_segments : traced.batch.encoder_segments;
            if (std::none_of(layers.begin(), layers.end(), [&](const RoutedLayer& l) { return l.decoder == decoder; })) continue;
            const int64_t length = decoder ? traced.batch.decoder_length : traced.batch.encoder_length;
            for (int64_t r = 0; r < traced.batch.rows; ++r) {
                int64_t real = length;
                while (real > 0 && segments[static_cast<size_t>(r * length + real - 1)] == 0) --real;
                if (real == 0) continue;
                Json line;
                line["row"] = traced.batch.first_row + r;
                line["stack"] = decoder ? "decoder" : "encoder";
                for (const int32_t task : traced.tasks[static_cast<size_t>(r)]) line["tasks"].push_back(trace_.tasks[static_cast<size_t>(task)]);
                line["ids"] = std::vector<int32_t>(ids.begin() + r * length, ids.begin() + r * length + real);
                line["segments"] = std::vector<int32_t>(segments.begin() + r * length, segments.begin() + r * length + real);
                for (size_t l = 0; l < layers.size(); ++l) {
                    if (layers[l].decoder != decoder) continue;
                    Json& layer = line["layers"][std::to_string(layers[l].block)];
                    for (int64_t n = r * length; n < r * length + real; ++n) {
                        const auto wanted = views[l].wanted(n), kept = views[l].kept(n);
                        const auto gates = views[l].gates(n);
                        layer["wanted"].push_back(std::vector<int32_t>(wanted.begin(), wanted.end()));
                        layer["kept"].push_back(std::vector<int32_t>(kept.begin(), kept.end()));
                        layer["gates"].push_back(std::vector<double>(gates.begin(), gates.end()));
                    }
                }
                settings_.dump(line.dump() + "\n");
            }
        }
    }

    Context& context_;
    const Transformer& model_;
    const Transformer* other_;
    const TraceSettings& settings_;
    RoutingTrace& trace_;
};

// The data section that rows are made by: objective and packing follow the paths and the capacity, ids and stacks the model.
DataConfig rows_config(const ModelConfig& model, const Tokenizer& tokenizer, const std::vector<std::string>& paths, const TraceSettings& settings) {
    DataConfig data = settings.data;
    const auto shards = std::count_if(paths.begin(), paths.end(), is_shard_folder);
    if (shards > 0 && shards < static_cast<std::ptrdiff_t>(paths.size())) fail(Exit::usage, "a trace is taken of task files or of token shards, not of both; give them one after the other");
    const bool other_stack = data.objective == (model.encoder_decoder ? Objective::causal_lm : Objective::span_corruption);
    if (shards == 0) data.objective = Objective::instruct;
    else if (data.objective == Objective::instruct || other_stack) data.objective = model.encoder_decoder ? Objective::span_corruption : model.bidirectional_prefix ? Objective::prefix_lm : Objective::causal_lm;
    data.encoder_decoder = model.encoder_decoder, data.bidirectional_prefix = model.bidirectional_prefix;
    if (!model.encoder_decoder) data.encoder_length = 0;
    data.pad_id = model.pad_id, data.eos_id = model.eos_id, data.decoder_start_id = model.decoder_start_id;
    data.packing = data.packing && settings.capacity == TraceCapacity::training;
    data.tasks = 0, data.weights.clear(), data.cap = 0;
    return resolve_data_config(data, tokenizer);
}

}  // namespace

RoutingTrace trace_routing(Context& context, const Transformer& model, const Transformer* other, const Tokenizer& tokenizer, const std::vector<std::string>& paths,
                           const TraceSettings& settings) {
    const ModelConfig& config = model.config();
    if (config.experts == 0 || (config.encoder_sparse.empty() && config.decoder_sparse.empty())) fail(Exit::usage, "the model is dense: there is no routing to trace; name a sparse one");
    if (other) check_comparable(config, other->config());
    tokenizer.check_fits(config.vocab_size, config.pad_id, config.eos_id);
    const DataConfig data = rows_config(config, tokenizer, paths, settings);
    TraceRows rows(paths, data, tokenizer, settings.limit, settings.batch, group_rows_of(config, settings.capacity));
    RoutingTrace trace;
    trace.capacity = capacity_in_words(config, settings.capacity, data.packing && data.objective == Objective::instruct);
    trace.tasks = rows.tasks();
    trace.classes = token_classes(tokenizer, config.vocab_size);
    trace.found = rows.counts();
    Tracer tracer(context, model, other, settings, trace);
    TracedBatch traced;
    while (rows.next(traced)) {
        tracer.add(traced);
        if (settings.progress) settings.progress(rows.done());
    }
    return trace;
}

}  // namespace flanmoe
