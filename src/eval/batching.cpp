#include "eval/batching.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace flanmoe {

namespace {

int64_t longest(std::span<const Tokens* const> sequences) {
    size_t length = 0;
    for (const Tokens* s : sequences) length = std::max(length, s->size());
    return static_cast<int64_t>(length);
}

// Row r of a padded matrix begins with these values.
template <class Values>
void put(std::vector<int32_t>& matrix, int64_t length, size_t r, const Values& values) {
    std::copy(values.begin(), values.end(), matrix.begin() + static_cast<std::ptrdiff_t>(r) * length);
}

}  // namespace

Pass evaluation_pass(Context& context, const Transformer& model) {
    return Pass{.context = context, .parameters = model.parameters(), .config = model.config(), .route_rows_alone = true};
}

void BatchSlots::add(const Batch& batch) {
    all += static_cast<int64_t>(batch.encoder_ids.size() + batch.decoder_ids.size());
    busy += batch.real_tokens();
}

int64_t most_copies(const BatchLimits& limits, int64_t tokens) { return std::max<int64_t>(1, 8 * limits.tokens / tokens); }

namespace {

constexpr double least_busy = 0.85;
constexpr int64_t small = 8;  // batches of an eighth of the tokens that a batch may have

// What a batch computes, as rows join it.
struct Extent {
    int64_t rows = 0, targets = 0, input = 0, target = 0, busy = 0;
    bool copied = false;

    Extent with(const InputLengths& row) const {
        return {rows + 1, row.targets, std::max(input, row.input), std::max(target, row.target), busy + row.input + row.target_tokens, row.copied};
    }
    bool within(const BatchLimits& limits) const {
        const int64_t inputs = rows * input, outputs = rows * targets * target, slots = inputs + outputs;
        if (rows > limits.rows || inputs > limits.tokens || outputs > limits.tokens) return false;
        if (copied && rows * targets > most_copies(limits, input + target)) return false;
        return targets == 0 || slots <= limits.tokens / small || static_cast<double>(busy) >= least_busy * static_cast<double>(slots);
    }
};

}  // namespace

std::vector<std::vector<size_t>> batches_by_length(std::span<const InputLengths> rows, const BatchLimits& limits) {
    const auto key = [&](size_t row) { return std::tuple(rows[row].targets, rows[row].target, rows[row].input); };
    std::vector<size_t> order(rows.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) > key(b); });
    std::vector<std::vector<size_t>> batches;
    Extent batch;
    for (const size_t row : order) {
        const Extent joined = batch.with(rows[row]);
        const bool joins = batch.rows > 0 && batch.targets == rows[row].targets && joined.within(limits);
        if (!joins) batches.emplace_back();
        batches.back().push_back(row);
        batch = joins ? joined : Extent().with(rows[row]);
    }
    return batches;
}

namespace {

Batch encoder_batch(const ModelConfig& config, std::span<const Tokens* const> inputs) {
    Batch b;
    b.rows = static_cast<int64_t>(inputs.size());
    b.encoder_length = std::max<int64_t>(1, longest(inputs));
    b.encoder_ids.assign(static_cast<size_t>(b.rows * b.encoder_length), static_cast<int32_t>(config.pad_id));
    b.encoder_segments.assign(b.encoder_ids.size(), 0);
    for (size_t r = 0; r < inputs.size(); ++r) {
        put(b.encoder_ids, b.encoder_length, r, *inputs[r]);
        put(b.encoder_segments, b.encoder_length, r, Tokens(inputs[r]->size(), 1));
    }
    return b;
}

// Rows of the decoder side: `ids[r]` after the start mark, or after first[r] if given; the first prefix[r] of them are input.
void fill_decoder(const ModelConfig& config, const std::vector<Tokens>& ids, const std::vector<size_t>& prefix, Batch& b, const Tokens& first = {}) {
    size_t length = 0;
    for (const Tokens& row : ids) length = std::max(length, row.size() + 1);
    b.decoder_length = static_cast<int64_t>(length);
    b.decoder_ids.assign(ids.size() * length, static_cast<int32_t>(config.pad_id));
    b.decoder_segments.assign(b.decoder_ids.size(), 0);
    if (config.bidirectional_prefix) b.prefix_ends.assign(b.decoder_ids.size(), 0);
    for (size_t r = 0; r < ids.size(); ++r) {
        b.decoder_ids[r * length] = first.empty() ? static_cast<int32_t>(config.decoder_start_id) : first[r];
        std::copy(ids[r].begin(), ids[r].end(), b.decoder_ids.begin() + static_cast<std::ptrdiff_t>(r * length + 1));
        std::fill_n(b.decoder_segments.begin() + static_cast<std::ptrdiff_t>(r * length), ids[r].size() + 1, 1);
        if (config.bidirectional_prefix && prefix[r] > 0)
            std::fill_n(b.prefix_ends.begin() + static_cast<std::ptrdiff_t>(r * length), prefix[r] + 1, static_cast<int32_t>(prefix[r] + 1));
    }
}

// Where each row's targets are to be predicted.
void fill_targets(std::span<const Tokens* const> targets, const std::vector<size_t>& prefix, Batch& b) {
    b.decoder_targets.assign(b.decoder_ids.size(), ignored);
    for (size_t r = 0; r < targets.size(); ++r)
        std::copy(targets[r]->begin(), targets[r]->end(), b.decoder_targets.begin() + static_cast<std::ptrdiff_t>(r) * b.decoder_length + static_cast<std::ptrdiff_t>(prefix[r]));
}

}  // namespace

Batch input_batch(const ModelConfig& config, std::span<const Tokens* const> inputs) {
    if (config.encoder_decoder) return encoder_batch(config, inputs);
    std::vector<Tokens> ids;
    std::vector<size_t> prefix;
    for (const Tokens* input : inputs) ids.push_back(*input), prefix.push_back(input->size());
    Batch b;
    b.rows = static_cast<int64_t>(ids.size());
    fill_decoder(config, ids, prefix, b);
    return b;
}

Batch scoring_batch(const ModelConfig& config, std::span<const Tokens* const> inputs, std::span<const Tokens* const> targets) {
    require(!inputs.empty() && targets.size() % inputs.size() == 0 && (config.encoder_decoder || targets.size() == inputs.size()), "equally many targets an input, and one of a decoder-only model");
    Batch b = config.encoder_decoder ? encoder_batch(config, inputs) : Batch();
    b.rows = static_cast<int64_t>(inputs.size()), b.targets_per_row = static_cast<int64_t>(targets.size()) / b.rows;
    std::vector<Tokens> ids(targets.size());
    std::vector<size_t> prefix(targets.size(), 0);
    for (size_t r = 0; r < targets.size(); ++r) {
        require(!targets[r]->empty(), "targets that end in the end mark");
        if (!config.encoder_decoder) ids[r] = *inputs[r], prefix[r] = inputs[r]->size();
        ids[r].insert(ids[r].end(), targets[r]->begin(), targets[r]->end() - 1);
    }
    fill_decoder(config, ids, prefix, b);
    fill_targets(targets, prefix, b);
    return b;
}

Batch continuation_batch(const ModelConfig& config, std::span<const Tokens* const> inputs, std::span<const Tokens* const> targets) {
    require(!config.encoder_decoder && !inputs.empty() && targets.size() % inputs.size() == 0, "equally many targets an input of a decoder-only model");
    Batch b;
    b.rows = static_cast<int64_t>(inputs.size()), b.targets_per_row = static_cast<int64_t>(targets.size()) / b.rows;
    std::vector<Tokens> ids;
    Tokens first;
    for (size_t r = 0; r < targets.size(); ++r) {
        require(!targets[r]->empty(), "targets that end in the end mark");
        const Tokens& input = *inputs[r / static_cast<size_t>(b.targets_per_row)];
        first.push_back(input.empty() ? static_cast<int32_t>(config.decoder_start_id) : input.back());
        ids.emplace_back(targets[r]->begin(), targets[r]->end() - 1);
    }
    const std::vector<size_t> prefix(targets.size(), 0);
    fill_decoder(config, ids, prefix, b, first);
    b.prefix_ends.clear();
    fill_targets(targets, prefix, b);
    return b;
}

bool targets_share_input(const ModelConfig& config) {
    const RoutingConfig& routing = config.decoder_routing;
    return config.encoder_decoder || config.decoder_sparse.empty() || (routing.kind == RouterKind::token_choice && (routing.dropless || routing.eval_dropless));
}

}  // namespace flanmoe
