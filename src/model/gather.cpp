#include "model/gather.hpp"

#include <cstring>

namespace flanmoe {

namespace {

// Copies between a part and the whole tensor around it.
void copy_part(char* whole, const Shape& shape, char* part, const Shape& part_shape, Split split, int64_t first, int64_t size, bool to_whole) {
    const int64_t stride = shape[-1] * size;
    const bool columns = split == Split::columns;
    const int64_t width = part_shape[-1] * size, rows = columns ? part_shape.elements() / part_shape[-1] : 1;
    const int64_t run = columns ? width : part_shape.elements() * size;
    const int64_t begin = (columns || shape.rank == 1 ? first * size : first * stride);
    for (int64_t r = 0; r < rows; ++r) {
        char *there = whole + begin + r * stride, *here = part + r * run;
        std::memcpy(to_whole ? there : here, to_whole ? here : there, static_cast<size_t>(run));
    }
}

// Of rank `rank` of those that share it.
Shape part_shape(const Shape& shape, Split split, int rank, int ranks, int64_t& first) {
    Shape part = shape;
    int64_t& size = part.sizes[split == Split::columns ? part.rank - 1 : 0];
    std::tie(first, size) = share_of(size, rank, ranks);
    return part;
}

// The whole of a tensor that tensor ranks share, on all of them.
HostTensor join_parts(Context& context, Communicator& ranks, const NamedTensor& t) {
    const Shape shape = t.shape();
    int64_t first = 0, room = 0;
    for (int r = 0; r < ranks.size(); ++r) room = std::max(room, part_shape(shape, t.slice.split, r, ranks.size(), first).elements());
    const Tensor own = context.allocate(t.tensor.dtype, {room}), all = context.allocate(t.tensor.dtype, {ranks.size(), room});
    context.engine->copy(own.data, t.tensor.data, t.tensor.bytes());
    ranks.all_gather(context, own, all);
    const HostTensor parts = to_host(*context.engine, all);
    HostTensor whole(t.tensor.dtype, shape);
    const int64_t size = size_of(t.tensor.dtype);
    for (int r = 0; r < ranks.size(); ++r) {
        const Shape part = part_shape(shape, t.slice.split, r, ranks.size(), first);
        copy_part(reinterpret_cast<char*>(whole.memory.get()), shape, reinterpret_cast<char*>(parts.memory.get()) + r * room * size, part, t.slice.split, first, size, true);
    }
    return whole;
}

}  // namespace

Slice slice_of(const Mesh& mesh, const Parameter& p, int64_t expert, const Shape& shape, Split split) {
    Slice slice;
    slice.shape = shape;
    if (p.is_split() && split != Split::none) slice.split = split, slice.first = p.first;
    if (p.experts > 0 && mesh.shape().expert > 1) slice.owner = static_cast<int>(expert / (p.experts / mesh.shape().expert));
    return slice;
}

NamedTensor named_master(const ParameterStore& store, const Parameter& p, int64_t expert) {
    const Slice slice = slice_of(store.mesh(), p, expert, p.shape, p.split);
    const bool here = slice.owner < 0 || slice.owner == store.mesh().expert_index();
    return {p.tensor_name(expert), here ? store.master(p, expert - p.first_expert) : Tensor(), slice};
}

HostTensor Gatherer::operator()(const NamedTensor& t) {
    if (calls_++ < skipped_) return {};
    const Mesh& mesh = store_->mesh();
    if (mesh.data_index() != 0) return {};
    Context context = store_->context();
    const int owner = std::max(0, t.slice.owner);
    HostTensor whole;
    if (mesh.expert_index() == owner)
        whole = t.slice.split != Split::none ? join_parts(context, mesh.tensor(), t) : mesh.tensor_index() == 0 ? to_host(*context.engine, t.tensor) : HostTensor();
    if (owner > 0 && mesh.tensor_index() == 0) {
        const Tensor values = context.allocate(store_->master_type(), t.shape());
        if (mesh.expert_index() == owner) context.engine->upload(values.data, whole.memory.get(), values.bytes());
        mesh.expert().broadcast(context, values, owner);
        if (mesh.expert_index() == 0) whole = to_host(*context.engine, values);
    }
    return mesh.world().rank() == 0 ? std::move(whole) : HostTensor();
}

HostTensor cut_part(const HostTensor& whole, const Slice& slice, const Shape& part) {
    HostTensor cut(whole.dtype, part);
    copy_part(reinterpret_cast<char*>(whole.memory.get()), whole.shape, reinterpret_cast<char*>(cut.memory.get()), part, slice.split, slice.first, size_of(whole.dtype), false);
    return cut;
}

}  // namespace flanmoe
