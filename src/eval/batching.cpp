#include "eval/batching.hpp"

#include <algorithm>
#include <numeric>

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

std::vector<std::vector<size_t>> batches_by_length(std::span<const Tokens* const> sequences, const BatchLimits& limits) {
    std::vector<size_t> order(sequences.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sequences[a]->size() > sequences[b]->size(); });
    std::vector<std::vector<size_t>> batches;
    for (size_t first = 0; first < order.size();) {
        const auto length = static_cast<int64_t>(std::max<size_t>(1, sequences[order[first]]->size()));
        const auto rows = static_cast<size_t>(std::max<int64_t>(1, std::min(limits.rows, limits.tokens / length)));
        const size_t end = std::min(order.size(), first + rows);
        batches.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(first), order.begin() + static_cast<std::ptrdiff_t>(end));
        first = end;
    }
    return batches;
}

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

void add_targets(const ModelConfig& config, std::span<const Tokens* const> targets, Batch& batch) {
    batch.decoder_length = std::max<int64_t>(1, longest(targets));
    batch.decoder_ids.assign(static_cast<size_t>(batch.rows * batch.decoder_length), static_cast<int32_t>(config.pad_id));
    batch.decoder_segments.assign(batch.decoder_ids.size(), 0);
    batch.decoder_targets.assign(batch.decoder_ids.size(), ignored);
    for (size_t r = 0; r < targets.size(); ++r) {
        const Tokens& target = *targets[r];
        require(!target.empty(), "targets that end in the end mark");
        Tokens shifted = {static_cast<int32_t>(config.decoder_start_id)};
        shifted.insert(shifted.end(), target.begin(), target.end() - 1);
        put(batch.decoder_ids, batch.decoder_length, r, shifted);
        put(batch.decoder_segments, batch.decoder_length, r, Tokens(target.size(), 1));
        put(batch.decoder_targets, batch.decoder_length, r, target);
    }
}

}  // namespace flanmoe
