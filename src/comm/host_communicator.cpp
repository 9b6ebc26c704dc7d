#include "comm/host_communicator.hpp"

#include "core/host_tensor.hpp"
#include "core/parallel.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace flanmoe {

namespace {

constexpr int64_t piece_bytes = int64_t{64} << 20;  ///< values that one round of an all-reduce takes, which bounds the memory for others' parts

/// A tensor of the context as host memory: itself, or a copy that is brought back.
class Staged {
public:
    Staged(Context& context, const Tensor& tensor, bool read) : engine_(*context.engine), tensor_(tensor) {
        require(tensor.compact(), "a compact tensor to communicate");
        if (engine_.on_host()) return;
        copy_ = HostTensor(tensor.dtype, tensor.shape);
        if (read) engine_.download(copy_.memory.get(), tensor.data, tensor.bytes());
    }
    std::byte* data() const { return engine_.on_host() ? static_cast<std::byte*>(tensor_.data) : copy_.memory.get(); }
    void write_back() {
        if (!engine_.on_host()) engine_.upload(tensor_.data, copy_.memory.get(), tensor_.bytes());
    }

private:
    Engine& engine_;
    Tensor tensor_;
    HostTensor copy_;
};

/// part[i] = combination over the ranks in their order of parts[r][i].
template <class T>
void combine(const std::vector<const std::byte*>& parts, std::byte* part, int64_t count, Reduction reduction) {
    using Sum = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
    T* out = reinterpret_cast<T*>(part);
    parallel_for(count, 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            Sum value = static_cast<Sum>(reinterpret_cast<const T*>(parts[0])[i]);
            for (size_t r = 1; r < parts.size(); ++r) {
                const Sum other = static_cast<Sum>(reinterpret_cast<const T*>(parts[r])[i]);
                if (reduction == Reduction::sum) {
                    value += other;
                } else if (value < other || other != other) {  // a NaN wins
                    value = other;
                }
            }
            out[i] = static_cast<T>(value);
        }
    });
}

void combine(DType type, const std::vector<const std::byte*>& parts, std::byte* part, int64_t count, Reduction reduction) {
    switch (type) {
        case DType::f32: return combine<float>(parts, part, count, reduction);
        case DType::f64: return combine<double>(parts, part, count, reduction);
        case DType::bf16: return combine<bf16>(parts, part, count, reduction);
        case DType::i32: return combine<int32_t>(parts, part, count, reduction);
        case DType::i64: return combine<int64_t>(parts, part, count, reduction);
        default: require(false, "a type that can be summed over ranks: f32, f64, bf16, i32 or i64");
    }
}

void copy_bytes(std::byte* to, const std::byte* from, int64_t bytes) {
    if (bytes > 0 && to != from) std::memmove(to, from, static_cast<size_t>(bytes));
}

}  // namespace

void HostCommunicator::transfer(Collective collective, const std::vector<Piece>& sends, const std::vector<Piece>& receives) {
    if (size() == 1) return;
    int64_t sent = 0;
    for (const Piece& piece : sends) sent += piece.bytes;
    count(collective, sent);
    exchange(collective, sends, receives);
}

/// Sends each rank r elements [bounds[r], bounds[r + 1]) of `whole`; `part` = the combination of this rank's. It may lie inside `whole` at its own place.
void HostCommunicator::reduce_parts(Collective collective, const std::byte* whole, std::byte* part, DType type, Reduction reduction, const std::vector<int64_t>& bounds) {
    const int64_t width = size_of(type), mine = (bounds[static_cast<size_t>(rank()) + 1] - bounds[static_cast<size_t>(rank())]) * width;
    incoming_.resize(static_cast<size_t>(mine * (size() - 1)));
    std::vector<const std::byte*> parts;
    std::vector<Piece> sends, receives;
    std::byte* place = incoming_.data();
    for (int r = 0; r < size(); ++r) {
        std::byte* theirs = const_cast<std::byte*>(whole) + bounds[static_cast<size_t>(r)] * width;
        if (r == rank()) {
            parts.push_back(theirs);
            continue;
        }
        sends.push_back({r, theirs, (bounds[static_cast<size_t>(r) + 1] - bounds[static_cast<size_t>(r)]) * width});
        receives.push_back({r, place, mine});
        parts.push_back(place);
        place += mine;
    }
    transfer(collective, sends, receives);
    combine(type, parts, part, mine / width, reduction);
}

void HostCommunicator::all_reduce(Context& context, const Tensor& values, Reduction reduction) {
    if (size() == 1) return;  // spares the copies
    Staged staged(context, values, true);
    const int64_t width = size_of(values.dtype), step = piece_bytes / width;
    for (int64_t first = 0; first < values.elements(); first += step) {
        const int64_t elements = std::min(step, values.elements() - first);
        std::byte* data = staged.data() + first * width;
        std::vector<int64_t> bounds;
        for (int r = 0; r <= size(); ++r) bounds.push_back(elements * r / size());
        const int64_t mine = bounds[static_cast<size_t>(rank())], length = bounds[static_cast<size_t>(rank()) + 1] - mine;
        reduce_parts(Collective::all_reduce, data, data + mine * width, values.dtype, reduction, bounds);
        std::vector<Piece> sends, receives;
        for (int r = 0; r < size(); ++r) {
            if (r == rank()) continue;
            const int64_t begin = bounds[static_cast<size_t>(r)];
            sends.push_back({r, data + mine * width, length * width});
            receives.push_back({r, data + begin * width, (bounds[static_cast<size_t>(r) + 1] - begin) * width});
        }
        transfer(Collective::all_reduce, sends, receives);
    }
    staged.write_back();
}

void HostCommunicator::all_gather(Context& context, const Tensor& part, const Tensor& whole) {
    require(part.dtype == whole.dtype && whole.elements() == part.elements() * size(), "a whole of as many equal parts as there are ranks");
    Staged from(context, part, true), to(context, whole, false);
    std::vector<Piece> sends, receives;
    for (int r = 0; r < size(); ++r) {
        std::byte* place = to.data() + r * part.bytes();
        if (r == rank()) {
            copy_bytes(place, from.data(), part.bytes());
        } else {
            sends.push_back({r, from.data(), part.bytes()}), receives.push_back({r, place, part.bytes()});
        }
    }
    transfer(Collective::all_gather, sends, receives);
    to.write_back();
}

void HostCommunicator::reduce_scatter(Context& context, const Tensor& whole, const Tensor& part) {
    require(part.dtype == whole.dtype && whole.elements() == part.elements() * size(), "a whole of as many equal parts as there are ranks");
    Staged from(context, whole, true), to(context, part, false);
    std::vector<int64_t> bounds;
    for (int r = 0; r <= size(); ++r) bounds.push_back(part.elements() * r);
    reduce_parts(Collective::reduce_scatter, from.data(), to.data(), part.dtype, Reduction::sum, bounds);
    to.write_back();
}

void HostCommunicator::all_to_all(Context& context, const Tensor& send, const std::vector<int64_t>& send_rows, const Tensor& receive,
                                  const std::vector<int64_t>& receive_rows) {
    const auto total = [](const std::vector<int64_t>& rows) { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); };
    require(static_cast<int>(send_rows.size()) == size() && static_cast<int>(receive_rows.size()) == size(), "a number of rows for every rank");
    require(send.dtype == receive.dtype && send.cols() == receive.cols() && send.rows() == total(send_rows) && receive.rows() == total(receive_rows),
            "tensors of as many rows as the ranks' together");
    require(send_rows[static_cast<size_t>(rank())] == receive_rows[static_cast<size_t>(rank())], "as many rows from a rank to itself as it expects");
    Staged from(context, send, true), to(context, receive, false);
    const int64_t width = send.cols() * size_of(send.dtype);
    std::byte *source = from.data(), *target = to.data();
    std::vector<Piece> sends, receives;
    for (int r = 0; r < size(); ++r) {
        const int64_t out = send_rows[static_cast<size_t>(r)] * width, in = receive_rows[static_cast<size_t>(r)] * width;
        if (r == rank()) {
            copy_bytes(target, source, in);
        } else {
            sends.push_back({r, source, out}), receives.push_back({r, target, in});
        }
        source += out, target += in;
    }
    transfer(Collective::all_to_all, sends, receives);
    to.write_back();
}

void HostCommunicator::broadcast(Context& context, const Tensor& values, int root) {
    require(root >= 0 && root < size(), "a root that is a rank of the group");
    if (size() == 1) return;
    Staged staged(context, values, rank() == root);
    std::vector<Piece> sends, receives;
    if (rank() != root) receives.push_back({root, staged.data(), values.bytes()});
    for (int r = 0; rank() == root && r < size(); ++r)
        if (r != root) sends.push_back({r, staged.data(), values.bytes()});
    transfer(Collective::broadcast, sends, receives);
    if (rank() != root) staged.write_back();
}

void HostCommunicator::barrier() {
    std::byte out{};
    std::vector<std::byte> in(static_cast<size_t>(size()));
    std::vector<Piece> sends, receives;
    for (int r = 0; r < size(); ++r) {
        if (r == rank()) continue;
        sends.push_back({r, &out, 1}), receives.push_back({r, &in[static_cast<size_t>(r)], 1});
    }
    transfer(Collective::barrier, sends, receives);
}

}  // namespace flanmoe
