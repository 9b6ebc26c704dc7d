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

// The whole of a tensor that tensor ranks share, on the first of them; `parts` as many of `room` elements.
HostTensor join_parts(Engine& engine, const Tensor& all, const NamedTensor& t, int ranks, int64_t room) {
    const HostTensor parts = to_host(engine, all);
    HostTensor whole(t.tensor.dtype, t.shape());
    const int64_t size = size_of(t.tensor.dtype);
    int64_t first = 0;
    for (int r = 0; r < ranks; ++r) {
        const Shape part = part_of(t.shape(), t.slice.split, r, ranks, first);
        copy_part(reinterpret_cast<char*>(whole.memory.get()), t.shape(), reinterpret_cast<char*>(parts.memory.get()) + r * room * size, part, t.slice.split, first, size, true);
    }
    return whole;
}

// Elements of the largest part.
int64_t room_of(const NamedTensor& t, int ranks) {
    int64_t first = 0, room = 0;
    for (int r = 0; r < ranks; ++r) room = std::max(room, part_of(t.shape(), t.slice.split, r, ranks, first).elements());
    return room;
}

}  // namespace

Slice slice_of(const Mesh& mesh, const Parameter& p, int64_t expert, const Shape& shape, Split split, const std::vector<int>& owners) {
    Slice slice;
    slice.shape = shape;
    if (p.is_split() && split != Split::none) slice.split = split, slice.first = p.first;
    // Every expert rank has as many experts, with the same owners among its data ranks.
    const int64_t experts = p.experts > 0 ? p.part_experts : 1;
    if (!owners.empty()) slice.replica = owners[static_cast<size_t>(expert % experts)];
    if (p.experts > 0 && mesh.shape().expert > 1) slice.replica = std::max(0, slice.replica) * mesh.shape().expert + static_cast<int>(expert / experts);
    return slice;
}

NamedTensor named_master(const ParameterStore& store, const Parameter& p, int64_t expert) {
    const int64_t tensor = expert - p.first_expert;
    const bool here = tensor >= 0 && tensor < p.part_tensors();
    return {p.tensor_name(expert), here ? store.master(p, tensor) : Tensor(), slice_of(store.mesh(), p, expert, p.shape, p.split, store.has_common_master(p) ? std::vector<int>() : p.owners)};
}

// Memory first: a rank that has none fails before the others wait for it, and comes again in repeat(). Once its collectives have begun, a call counts as made.
HostTensor Gatherer::operator()(const NamedTensor& t) {
    if (calls_ < skipped_) return ++calls_, HostTensor();
    const Mesh& mesh = store_->mesh();
    const int source = std::max(0, t.slice.replica), tensors = mesh.shape().tensor;
    const bool owned = mesh.replica_index() == source, split = owned && t.slice.split != Split::none, passed_on = source > 0 && mesh.tensor_index() == 0;
    if (!owned && !passed_on) return ++calls_, HostTensor();
    Arena::Scope scope(context_.arena);
    Engine& engine = *context_.engine;
    const bool receives = passed_on && mesh.replica_index() == 0;
    const int64_t room = split ? room_of(t, tensors) : 0, elements = t.shape().elements();
    const Tensor own = split ? context_.allocate(t.tensor.dtype, {room}) : Tensor(), all = split ? context_.allocate(t.tensor.dtype, {tensors, room}) : Tensor();
    const Tensor values = passed_on ? context_.allocate(store_->master_type(), {owned || receives ? elements : 1, 1}) : Tensor();
    ++calls_;
    HostTensor whole;
    if (split) {
        engine.copy(own.data, t.tensor.data, t.tensor.bytes());
        mesh.tensor().all_gather(context_, own, all);
    }
    if (owned && mesh.tensor_index() == 0) whole = split ? join_parts(engine, all, t, tensors, room) : to_host(engine, t.tensor);
    if (passed_on) {
        if (owned) engine.upload(values.data, whole.memory.get(), values.bytes());
        std::vector<RowBlock> to(static_cast<size_t>(mesh.replicas().size())), from = to;
        if (owned) to[0].rows = elements;
        if (receives) from[static_cast<size_t>(source)].rows = elements;
        mesh.replicas().all_to_all(context_, values, to, values, from);
        if (receives) whole = to_host(engine, values.view(t.shape()));
    }
    return mesh.world().rank() == 0 ? std::move(whole) : HostTensor();
}

HostTensor cut_part(const HostTensor& whole, const Slice& slice, const Shape& part) {
    HostTensor cut(whole.dtype, part);
    copy_part(reinterpret_cast<char*>(whole.memory.get()), whole.shape, reinterpret_cast<char*>(cut.memory.get()), part, slice.split, slice.first, size_of(whole.dtype), false);
    return cut;
}

}  // namespace flanmoe
