#include "comm/host_communicator.hpp"

#include "core/parallel.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <optional>

namespace flanmoe {

namespace {

constexpr int64_t piece_bytes = int64_t{64} << 20;  ///< values that one round of an all-reduce takes, which bounds the memory for others' parts

/// A tensor of the context as host memory: itself, or a copy in pinned memory that is brought back. What goes back is under way until the device is waited for: at the end,
/// since the memory is another's then.
class Staged {
public:
    Staged(Context& context, const Tensor& tensor, bool read) : engine_(*context.engine), tensor_(tensor) {
        require(tensor.compact(), "a compact tensor to communicate");
        if (engine_.on_host()) return;
        copy_.emplace(engine_, std::max<int64_t>(1, tensor.bytes()));
        if (!copy_->data()) fail(Exit::out_of_memory, "out of memory: there is no room to stage a tensor of {} bytes on the host for other ranks", tensor.bytes());
        if (read) fetch(0, tensor.bytes());
    }
    Staged(const Staged&) = delete;
    ~Staged() noexcept(false) {
        if (under_way_ && std::uncaught_exceptions() == errors_) engine_.synchronize();
    }
    std::byte* data() const { return static_cast<std::byte*>(engine_.on_host() ? tensor_.data : copy_->data()); }
    void write_back() { put(0, tensor_.bytes()); }
    /// Some bytes only.
    void fetch(int64_t first, int64_t bytes) {
        if (!engine_.on_host() && bytes > 0) engine_.download(data() + first, static_cast<std::byte*>(tensor_.data) + first, bytes);
    }
    void put(int64_t first, int64_t bytes) {
        if (engine_.on_host() || bytes == 0) return;
        engine_.upload_later(static_cast<std::byte*>(tensor_.data) + first, data() + first, bytes);
        under_way_ = true;
    }

private:
    Engine& engine_;
    Tensor tensor_;
    std::optional<PinnedBuffer> copy_;
    bool under_way_ = false;
    int errors_ = std::uncaught_exceptions();
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

// The whole of every other rank goes to the root: as many bytes in all as when each sums a part and sends it on, in one round.
void HostCommunicator::reduce(Context& context, const Tensor& values, int root) {
    require(root >= 0 && root < size(), "a root that is a rank of the group");
    if (size() == 1) return;
    Staged staged(context, values, true);
    const int64_t width = size_of(values.dtype), step = piece_bytes / width;
    for (int64_t first = 0; first < values.elements(); first += step) {
        // All elements are the root's part of the sum.
        const int64_t elements = std::min(step, values.elements() - first);
        std::vector<int64_t> bounds(static_cast<size_t>(root) + 1, 0);
        bounds.resize(static_cast<size_t>(size()) + 1, elements);
        std::byte* data = staged.data() + first * width;
        reduce_parts(Collective::reduce, data, data, values.dtype, Reduction::sum, bounds);
    }
    if (rank() == root) staged.write_back();
}

void HostCommunicator::all_to_all(Context& context, const Tensor& send, const std::vector<RowBlock>& blocks_to, const Tensor& receive, const std::vector<RowBlock>& blocks_from) {
    check_blocks(*this, send, blocks_to, receive, blocks_from);
    Staged from(context, send, false), to(context, receive, false);
    const int64_t width = send.cols() * size_of(send.dtype);
    std::vector<Piece> sends, receives;
    for (int r = 0; r < size(); ++r) {
        const RowBlock out = blocks_to[static_cast<size_t>(r)], in = blocks_from[static_cast<size_t>(r)];
        std::byte *source = from.data() + out.first * width, *target = to.data() + in.first * width;
        from.fetch(out.first * width, out.rows * width);
        if (r == rank()) {
            copy_bytes(target, source, in.rows * width);
        } else {
            sends.push_back({r, source, out.rows * width}), receives.push_back({r, target, in.rows * width});
        }
    }
    transfer(Collective::all_to_all, sends, receives);
    for (const RowBlock& in : blocks_from) to.put(in.first * width, in.rows * width);
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
