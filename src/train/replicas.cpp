#include "train/replicas.hpp"

#include "checkpoint/hashed_file.hpp"
#include "comm/agreement.hpp"
#include "config/config.hpp"
#include "core/host_tensor.hpp"

#include <xxhash.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

namespace flanmoe {

Share share_of(const Config& config, const Mesh& mesh) {
    Share share{mesh.replica_index(), mesh.shape().replicas(), 1, mesh.shape().expert > 1};
    if (share.count == 1 || config.model.experts == 0) return share;
    for (const RoutingConfig* routing : {&config.model.encoder_routing, &config.model.decoder_routing}) {
        if (routing->group_rows == 0)
            fail(Exit::usage, "moe.group_rows = 0 routes the whole batch together, so its rows cannot be divided over {} replicas; set it to the rows of a group", share.count);
        share.group_rows = std::lcm(share.group_rows, routing->group_rows);
    }
    return share;
}

LossSums sum_over_replicas(const Mesh& mesh, const LossSums& own) {
    if (mesh.replicas().size() == 1) return own;
    std::vector<double> values{own.output.nll, own.output.z, static_cast<double>(own.output.tokens), static_cast<double>(own.output.correct)};
    for (const RoutingReport& r : own.routing)
        for (const auto* part : {&r.statistics, &r.load, &r.demand}) values.insert(values.end(), part->begin(), part->end());
    Context context;
    const Tensor sums = context.upload(values, {static_cast<int64_t>(values.size())});
    mesh.replicas().all_reduce(context, sums);
    values = context.download<double>(sums);
    LossSums all = own;
    all.output.nll = values[0], all.output.z = values[1];
    all.output.tokens = static_cast<int64_t>(values[2]), all.output.correct = static_cast<int64_t>(values[3]);
    auto next = values.begin() + 4;
    for (RoutingReport& r : all.routing)
        for (auto* part : {&r.statistics, &r.load, &r.demand})
            for (double& value : *part) value = *next++;
    return all;
}

namespace {

/// Rank of the group whose hash differs from most others'; the last one if two halves stand against each other.
int odd_one(const std::vector<int64_t>& hashes) {
    std::map<int64_t, int> votes;
    for (const int64_t h : hashes) ++votes[h];
    int odd = 0;
    for (size_t r = 1; r < hashes.size(); ++r)
        if (votes[hashes[r]] <= votes[hashes[static_cast<size_t>(odd)]]) odd = static_cast<int>(r);
    return odd;
}

/// First difference among the ranks of a group, as a sentence; empty if there is none.
std::string difference(Communicator& group, int world_rank, const std::vector<std::string>& names, const std::vector<int64_t>& hashes) {
    if (group.size() == 1 || hashes.empty()) return "";
    Context context;
    const auto count = static_cast<int64_t>(hashes.size());
    const Tensor own = context.upload(hashes, {count}), all = context.allocate(DType::i64, {group.size(), count});
    group.all_gather(context, own, all);
    const Tensor rank = context.upload(std::vector<int32_t>{world_rank}, {1}), ranks = context.allocate(DType::i32, {group.size()});
    group.all_gather(context, rank, ranks);
    const auto found = context.download<int64_t>(all);
    const auto world = context.download<int32_t>(ranks);
    for (int64_t i = 0; i < count; ++i) {
        std::vector<int64_t> alike;
        for (int r = 0; r < group.size(); ++r) alike.push_back(found[static_cast<size_t>(r * count + i)]);
        if (std::adjacent_find(alike.begin(), alike.end(), std::not_equal_to<>()) == alike.end()) continue;
        return fmt::format("{} of rank {} is not what the ranks with the same weights have", names[static_cast<size_t>(i)], world[static_cast<size_t>(odd_one(alike))]);
    }
    return "";
}

}  // namespace

void check_equal_weights(const ParameterStore& store, const Mesh& mesh, int64_t step) {
    if (mesh.world().size() == 1) return;
    std::vector<std::string> dense_names, expert_names;
    std::vector<int64_t> dense, experts;
    for (const Parameter& p : store.records()) {
        const HostTensor first = to_host(store.engine(), store.master(p));
        XXH64_hash_t hash = XXH3_64bits(first.memory.get(), static_cast<size_t>(first.view().bytes()));
        for (int64_t e = 1; e < p.part_tensors(); ++e) {
            const HostTensor next = to_host(store.engine(), store.master(p, e));
            hash = XXH3_64bits_withSeed(next.memory.get(), static_cast<size_t>(next.view().bytes()), hash);
        }
        (p.experts ? expert_names : dense_names).push_back(p.name);
        (p.experts ? experts : dense).push_back(static_cast<int64_t>(hash));
    }
    const std::string own_dense = difference(mesh.replicas(), mesh.world().rank(), dense_names, dense);
    const std::string own_experts = difference(mesh.data(), mesh.world().rank(), expert_names, experts);
    together(mesh.world(), [&] {
        const std::string& found = own_dense.empty() ? own_experts : own_dense;
        if (!found.empty()) fail(Exit::corruption, "step {}: {}; its memory or processor is not to be trusted: leave that machine out and start again from the last checkpoint", step, found);
    });
}

std::string program_hash() { return hash_file("/proc/self/exe"); }

}  // namespace flanmoe
