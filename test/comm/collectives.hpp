// The collectives' cases, for any kind of communicator: expected values are written down by their definition.
#pragma once

#include "comm/communicator.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace flanmoe::test {

/// A value of element i on a rank, different for each; the same bits wherever it is taken, so not compiled into its callers.
[[gnu::noinline]] inline double value_of(int rank, int64_t i) { return std::sin(0.37 * static_cast<double>(i) + 1.3 * rank) * (rank % 3 == 0 ? 1e3 : 1e-3); }

template <class T>
T element_of(int rank, int64_t i) {
    return static_cast<T>(static_cast<float>(value_of(rank, i)));
}
template <class T>
std::vector<T> values_of(int rank, int64_t count) {
    std::vector<T> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(element_of<T>(rank, i));
    return values;
}

/// The sum in the order of ranks, in the type in which it is taken.
template <class T>
std::vector<T> sum_of(int ranks, int64_t count) {
    using Sum = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
    std::vector<T> sums;
    for (int64_t i = 0; i < count; ++i) {
        Sum sum = static_cast<Sum>(element_of<T>(0, i));
        for (int r = 1; r < ranks; ++r) sum += static_cast<Sum>(element_of<T>(r, i));
        sums.push_back(static_cast<T>(sum));
    }
    return sums;
}

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Every collective on a group of ranks; returns the number of checks that failed, for ranks that are not the test's own thread.
template <class T>
int failed_sums(Communicator& group, Context& context, int64_t count) {
    int failed = 0;
    const int n = group.size(), me = group.rank();
    const Tensor values = context.upload(values_of<T>(me, count), {count});
    group.all_reduce(context, values);
    failed += !same_bytes(context.download<T>(values), sum_of<T>(n, count));

    for (int root = 0; root < n; ++root) {
        const Tensor sums = context.upload(values_of<T>(me, count), {count});
        group.reduce(context, sums, root);
        failed += !same_bytes(context.download<T>(sums), me == root ? sum_of<T>(n, count) : values_of<T>(me, count));
    }

    const Tensor largest = context.upload(values_of<T>(me, count), {count});
    group.all_reduce(context, largest, Reduction::max);
    const auto found = context.download<T>(largest);
    for (int64_t i = 0; i < count; ++i) {
        T most = element_of<T>(0, i);
        for (int r = 1; r < n; ++r) most = std::max<T>(most, element_of<T>(r, i));
        failed += std::memcmp(&most, &found[static_cast<size_t>(i)], sizeof(T)) != 0;
    }

    const Tensor whole = context.upload(values_of<T>(me, count * n), {n, count}), part = context.allocate(dtype_of<T>, {count});
    group.reduce_scatter(context, whole, part);
    const auto sums = sum_of<T>(n, count * n);
    failed += !same_bytes(context.download<T>(part), std::vector<T>(sums.begin() + me * count, sums.begin() + (me + 1) * count));
    return failed;
}

inline int failed_moves(Communicator& group, Context& context, int64_t count) {
    int failed = 0;
    const int n = group.size(), me = group.rank();
    const Tensor part = context.upload(values_of<float>(me, count), {count}), whole = context.allocate(DType::f32, {n * count});
    group.all_gather(context, part, whole);
    std::vector<float> everyone;
    for (int r = 0; r < n; ++r)
        for (float v : values_of<float>(r, count)) everyone.push_back(v);
    failed += !same_bytes(context.download<float>(whole), everyone);

    for (int root = 0; root < n; ++root) {
        const Tensor values = context.upload(values_of<float>(me, count), {count});
        group.broadcast(context, values, root);
        failed += !same_bytes(context.download<float>(values), values_of<float>(root, count));
    }

    // Rank r sends (r + s) % 3 rows to rank s: some pairs exchange nothing.
    const int64_t width = 5;
    std::vector<int64_t> out, in;
    std::vector<float> sent, expected;
    const auto row = [&](int from, int to, int64_t i, int64_t c) { return static_cast<float>(1000 * from + 100 * to + 10 * i + c); };
    for (int s = 0; s < n; ++s) {
        out.push_back((me + s) % 3), in.push_back((s + me) % 3);
        for (int64_t i = 0; i < out.back(); ++i)
            for (int64_t c = 0; c < width; ++c) sent.push_back(row(me, s, i, c)), expected.push_back(row(s, me, i, c));
    }
    const int64_t rows = static_cast<int64_t>(sent.size()) / width;
    const Tensor send = context.upload(sent, {rows, width}), receive = context.allocate(DType::f32, {rows, width});
    group.all_to_all(context, send, side_by_side(out), receive, side_by_side(in));
    failed += !same_bytes(context.download<float>(receive), expected);
    group.barrier();
    return failed;
}

/// All cases on one group.
inline int failed_collectives(Communicator& group, Context& context) {
    int failed = 0;
    for (int64_t count : {1, 3, 17, 1000}) {
        failed += failed_sums<float>(group, context, count) + failed_sums<double>(group, context, count) + failed_sums<bf16>(group, context, count);
        failed += failed_sums<int32_t>(group, context, count) + failed_sums<int64_t>(group, context, count);
        failed += failed_moves(group, context, count);
    }
    return failed;
}

/// What a rank sends, by the closed formulas of communicator.hpp, counted over all ranks; `failed` counts those that differ.
inline int failed_traffic(Communicator& group, Context& context) {
    const int64_t n = group.size(), count = 24 * n;
    group.reset_traffic();
    const Tensor values = context.zeros(DType::f32, {count}), parts = context.zeros(DType::f32, {n, count});
    group.all_reduce(context, values);
    group.all_gather(context, values, parts);
    group.reduce_scatter(context, parts, values);
    group.broadcast(context, values, 0);
    group.reduce(context, values, 0);
    const std::vector<int64_t> rows(static_cast<size_t>(n), count / n);
    const Tensor in = context.zeros(DType::f32, {count, 3}), out = context.zeros(DType::f32, {count, 3});
    group.all_to_all(context, in, side_by_side(rows), out, side_by_side(rows));
    const auto sent = [&](Collective c) { return group.traffic(c).bytes; };
    int failed = 0;
    failed += sent(Collective::all_reduce) != 2 * (n - 1) * 4 * count / n;
    failed += sent(Collective::all_gather) != (n - 1) * 4 * count;
    failed += sent(Collective::reduce_scatter) != (n - 1) * 4 * count;
    failed += sent(Collective::broadcast) != (group.rank() == 0 ? (n - 1) * 4 * count : 0);
    failed += sent(Collective::reduce) != (group.rank() == 0 ? 0 : 4 * count);
    failed += sent(Collective::all_to_all) != (n - 1) * 12 * count / n;
    failed += group.traffic(Collective::all_gather).calls != (n > 1 ? 1 : 0);
    return failed;
}

}  // namespace flanmoe::test
