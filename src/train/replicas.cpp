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

int64_t rows_of_group(const ModelConfig& config) {
    return config.experts == 0 ? 1 : std::lcm(config.encoder_routing.group_rows, config.decoder_routing.group_rows);
}

Share share_of(const Config& config, const Mesh& mesh) {
    Share share{mesh.replica_index(), mesh.shape().replicas(), 1, mesh.shape().expert > 1};
    if (share.count == 1) return share;
    share.group_rows = rows_of_group(config.model);
    if (share.group_rows == 0)
        fail(Exit::usage, "moe.group_rows = 0 routes the whole batch together, so its rows cannot be divided over {} replicas; set it to the rows of a group", share.count);
    const bool padded = config.model.experts > 0 && (config.model.encoder_routing.route_padding || config.model.decoder_routing.route_padding);
    if (padded && config.data.batch_rows % (share.group_rows * share.count) != 0)
        fail(Exit::usage, "moe.route_padding routes padding too, so rows that fill up a share would count: data.batch_rows = {} must divide evenly over {} replicas in groups of {}; choose {}",
             config.data.batch_rows, share.count, share.group_rows, (config.data.batch_rows / (share.group_rows * share.count) + 1) * share.group_rows * share.count);
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

/// Who is wrong, by the hashes of ranks that should be equal and are not.
std::string blame(const std::vector<int64_t>& hashes, const std::vector<int32_t>& ranks) {
    std::map<int64_t, size_t> votes;
    for (const int64_t h : hashes) ++votes[h];
    const auto less = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto [right, most] = *std::max_element(votes.begin(), votes.end(), less);
    if (2 * most <= hashes.size())
        return fmt::format("is not the same on ranks {}, and which of them is wrong is not known; the memory or processor of one is not to be trusted: test their machines", fmt::join(ranks, ", "));
    std::vector<int32_t> wrong;
    for (size_t r = 0; r < hashes.size(); ++r)
        if (hashes[r] != right) wrong.push_back(ranks[r]);
    return fmt::format("of rank {} is not what the ranks with the same weights have; its memory or processor is not to be trusted: leave that machine out", fmt::join(wrong, ", "));
}

struct Hashes {
    std::vector<std::string> names;
    std::vector<int64_t> values;
    void add(const std::string& name, int64_t value) { names.push_back(name), values.push_back(value); }
};

/// First difference among the ranks of a group, as a sentence; empty if there is none.
std::string difference(Communicator& group, int world_rank, const Hashes& own_hashes) {
    const auto& [names, hashes] = own_hashes;
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
        return fmt::format("{} {}", names[static_cast<size_t>(i)], blame(alike, world));
    }
    return "";
}

}  // namespace

void check_equal_weights(const ParameterStore& store, const Mesh& mesh, int64_t step) {
    if (mesh.world().size() == 1) return;
    Hashes dense, experts, whole;  // whole: not split over tensor ranks
    for (const Parameter& p : store.records()) {
        const HostTensor first = to_host(store.engine(), store.common(p));
        XXH64_hash_t hash = XXH3_64bits(first.memory.get(), static_cast<size_t>(first.view().bytes()));
        for (int64_t e = 1; e < p.part_tensors(); ++e) {
            const HostTensor next = to_host(store.engine(), store.common(p, e));
            hash = XXH3_64bits_withSeed(next.memory.get(), static_cast<size_t>(next.view().bytes()), hash);
        }
        (p.experts ? experts : dense).add(p.name, static_cast<int64_t>(hash));
        if (!p.is_split()) whole.add(p.name, static_cast<int64_t>(hash));
    }
    const int rank = mesh.world().rank();
    const std::string found[] = {difference(mesh.replicas(), rank, dense), difference(mesh.data(), rank, experts), difference(mesh.tensor(), rank, whole)};
    together(mesh.world(), [&] {
        for (const std::string& sentence : found)
            if (!sentence.empty()) fail(Exit::corruption, "step {}: {}, and start again from the last checkpoint", step, sentence);
    });
}

std::string program_hash() { return hash_file("/proc/self/exe"); }

}  // namespace flanmoe
