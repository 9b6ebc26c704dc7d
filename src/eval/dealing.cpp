#include "eval/dealing.hpp"

#include "core/context.hpp"

namespace flanmoe {

Hand hand_of(const Mesh& mesh, int64_t rows) {
    const auto all = static_cast<size_t>(rows), replicas = static_cast<size_t>(mesh.shape().replicas());
    Hand hand;
    for (auto row = static_cast<size_t>(mesh.replica_index()); row < all; row += replicas) hand.rows.push_back(row);
    hand.own = hand.rows.size();
    if (mesh.shape().expert > 1) hand.rows.resize((all + replicas - 1) / replicas, 0);
    return hand;
}

Batch chosen_rows(const Batch& batch, std::span<const size_t> rows) {
    const auto pick = [&](const auto& values) {
        std::decay_t<decltype(values)> picked;
        const size_t length = values.size() / static_cast<size_t>(batch.rows);
        for (const size_t row : rows) {
            const auto first = values.begin() + static_cast<std::ptrdiff_t>(row * length);
            picked.insert(picked.end(), first, first + static_cast<std::ptrdiff_t>(length));
        }
        return picked;
    };
    Batch b;
    b.rows = static_cast<int64_t>(rows.size()), b.encoder_length = batch.encoder_length, b.decoder_length = batch.decoder_length, b.targets_per_row = batch.targets_per_row;
    b.encoder_ids = pick(batch.encoder_ids), b.encoder_segments = pick(batch.encoder_segments), b.encoder_routed = pick(batch.encoder_routed);
    b.decoder_ids = pick(batch.decoder_ids), b.decoder_segments = pick(batch.decoder_segments), b.decoder_routed = pick(batch.decoder_routed);
    b.decoder_targets = pick(batch.decoder_targets), b.prefix_ends = pick(batch.prefix_ends);
    return b;
}

int64_t largest_of_expert_ranks(const Mesh& mesh, int64_t value) {
    if (mesh.expert().size() == 1) return value;
    Context host;
    const Tensor largest = host.upload(std::vector<int64_t>{value}, {1});
    mesh.expert().all_reduce(host, largest, Reduction::max);
    return host.download<int64_t>(largest)[0];
}

void add_over_replicas(const Mesh& mesh, std::vector<double>& values) {
    if (mesh.replicas().size() == 1 || values.empty()) return;
    Context host;
    const Tensor sums = host.upload(values, {static_cast<int64_t>(values.size())});
    mesh.replicas().all_reduce(host, sums);
    values = host.download<double>(sums);
}

}  // namespace flanmoe
