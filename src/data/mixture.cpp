// See the header. Permutations of the current epoch and passes are kept until they change.
#include "data/mixture.hpp"

#include "core/error.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace flanmoe {

namespace {

// Integers that sum to `total`, in proportion to the weights, at least 1 each: floors first, then the largest remainders.
std::vector<int64_t> apportion(int64_t total, const std::vector<double>& weights) {
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<int64_t> shares;
    std::vector<double> remainders;
    int64_t given = 0;
    for (double weight : weights) {
        const double exact = static_cast<double>(total) * weight / sum;
        shares.push_back(std::max<int64_t>(1, static_cast<int64_t>(exact)));
        remainders.push_back(exact - static_cast<double>(shares.back()));
        given += shares.back();
    }
    std::vector<size_t> order(weights.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return remainders[a] > remainders[b]; });
    for (size_t i = 0; given < total; i = (i + 1) % order.size(), ++given) ++shares[order[i]];
    return shares;
}

}  // namespace

Mixture::Mixture(std::vector<int64_t> sizes, const std::vector<double>& weights, int64_t cap, int64_t seed, bool shuffle, int64_t slots)
    : sizes_(std::move(sizes)), seed_(seed), shuffle_(shuffle), passes_(sizes_.size()) {
    require(!sizes_.empty() && (weights.empty() || weights.size() == sizes_.size()), "a weight for every source, or none");
    std::vector<int64_t> shares;
    for (int64_t size : sizes_) shares.push_back(cap > 0 ? std::min(size, cap) : size);
    if (!weights.empty()) shares = apportion(std::max(slots, std::accumulate(shares.begin(), shares.end(), int64_t{0})), weights);
    first_.push_back(0);
    for (int64_t share : shares) first_.push_back(first_.back() + share);
}

int64_t Mixture::permuted(Order& order, int64_t pass, uint16_t stream, int64_t size, int64_t index) const {
    if (!shuffle_) return index;
    if (order.pass != pass) {
        order.permutation =
            Permutation(static_cast<uint64_t>(size), {static_cast<uint64_t>(seed_), static_cast<uint32_t>(pass), stream, Purpose::shuffle});
        order.pass = pass;
    }
    return static_cast<int64_t>(order.permutation(static_cast<uint64_t>(index)));
}

Mixture::Place Mixture::at(int64_t index) {
    const int64_t epoch = index / epoch_size();
    const int64_t place = permuted(epoch_, epoch, 0, epoch_size(), index % epoch_size());
    const size_t source = static_cast<size_t>(std::upper_bound(first_.begin(), first_.end(), place) - first_.begin()) - 1;
    const int64_t drawn = epoch * share(source) + place - first_[source];
    const int64_t pass = drawn / sizes_[source];
    const auto stream = static_cast<uint16_t>(1 + source % 65535);  // 0 is the epoch's; sources beyond share streams, which does no harm
    return {source, pass, permuted(passes_[source], pass, stream, sizes_[source], drawn % sizes_[source])};
}

}  // namespace flanmoe
