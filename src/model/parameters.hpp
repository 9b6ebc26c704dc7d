// Parameters: one declarative record each, and the store that holds weights and gradients.
//
// Initialisation, clipping, freezing, optimizers, checkpoints and `inspect` all read the record; nothing knows a parameter by its index.
// A record stands for one matrix or vector, or for the same matrix of every expert of a layer: on disk those are `experts` tensors whose names come
// from the pattern's "{e}". Records declared in one group lie next to each other without gaps, so that query, key and value (or wi_0 and wi_1, per expert)
// are one matrix for a fused product.
//
// The store keeps three flat arrays with the same layout: master weights and gradients in the accumulation type (float, or double for f64), and the
// compute copy in the compute type (an alias of the master unless that is bf16). Sums over all parameters are loops over a flat array.
//
// On a mesh of several ranks a store holds this rank's part: of a record that is split, some rows or columns; of a record of experts, some of them. Names and
// `shape` stay those of the whole tensor; `part` is what is here. Gradients of dense records are summed over the replicas (data x expert ranks), those of
// experts over the data ranks: every tensor rank has its own part of a split record, and the same bits of any other.
//
// Of a sharded store (model/sharding.hpp) one of the ranks that have the same tensor updates it. Where layers read nothing but the compute copy, only that rank
// has the master weights.
#pragma once

#include "comm/mesh.hpp"
#include "core/context.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flanmoe {

enum class Init : uint8_t { ones, zeros, normal, truncated_normal };
/// What a parameter belongs to, for freezing and for counting active parameters.
enum class ParameterKind : uint8_t { embedding, attention, norm, ffn, router, expert, head };

/// What tensor ranks share of a tensor: nothing (each has it whole), its rows (a vector's elements), or its columns.
enum class Split : uint8_t { none, rows, columns };

struct Parameter {
    std::string name;      ///< Hugging Face name; "{e}" stands for the expert number if experts > 0
    Shape shape;           ///< of one matrix [out, in] or vector [n]
    int64_t experts = 0;   ///< 0: one tensor; else as many tensors of this shape
    Init init = Init::normal;
    double deviation = 1;  ///< standard deviation of normal initialisers
    ParameterKind kind = ParameterKind::ffn;
    bool frozen = false;   ///< no gradient is applied, no optimizer state is held; declared so: a rule of its own changes it (balance biases of routers)

    bool full_precision = false;  ///< the forward reads the master weights, whatever its type

    Split split = Split::none;  ///< rank t of n has rows or columns [size t / n, size (t + 1) / n), rounded down

    Shape part;                 ///< of what this rank has of one tensor; set by the store, as all that follows
    int64_t first = 0;          ///< its first row or column
    int64_t first_expert = 0, part_experts = 0;  ///< of the experts this rank has
    int64_t offset = 0;         ///< elements from the start of the flat arrays
    int64_t expert_stride = 0;  ///< elements from one expert's tensor to the next
    std::vector<int> owners;    ///< who updates each tensor of the part, as a rank of ParameterStore::ranks_of(); empty: everyone who has it. Set by shard()

    int64_t tensors() const { return experts ? experts : 1; }
    int64_t elements() const { return shape.elements() * tensors(); }
    std::string tensor_name(int64_t expert) const;  ///< name with the expert number in place
    /// Of this rank's part: tensors are numbered from 0, expert first_expert + i being the i-th.
    int64_t part_tensors() const { return experts ? part_experts : 1; }
    int64_t part_elements() const { return part.elements() * part_tensors(); }
    bool is_split() const { return !(part == shape); }  ///< on this mesh
    std::string part_name(int64_t tensor) const { return tensor_name(first_expert + tensor); }
    int64_t tensor_offset(int64_t tensor) const { return offset + tensor * expert_stride; }
    int owner(int64_t tensor = 0) const { return owners.empty() ? -1 : owners[static_cast<size_t>(tensor)]; }
};

/// Draws the initial weights of one tensor of a record (f32 or f64, this rank's part) from the counter-based generator: element i of the whole tensor
/// depends on (seed, name, i) only.
void initialise_tensor(const Parameter& parameter, int64_t expert, uint64_t seed, const Tensor& into);

/// What rank `rank` of `ranks` has of `size` things that they share: the first, and how many.
std::pair<int64_t, int64_t> share_of(int64_t size, int64_t rank, int64_t ranks);

/// What that rank has of a tensor of `shape` that is split so, and its `first` row or column; all of it if nothing is split.
Shape part_of(const Shape& shape, Split split, int64_t rank, int64_t ranks, int64_t& first);

/// Bytes of a store's arrays, the gaps between groups included.
struct ArrayBytes {
    int64_t masters = 0, gradients = 0, compute = 0;  ///< compute: 0 where it is an alias of the masters
};

class ParameterStore {
public:
    /// The mesh must outlive the store.
    explicit ParameterStore(const Mesh& mesh = one_rank()) : mesh_(&mesh) {}

    /// Adds records that lie side by side. Expert records of one group are interleaved by expert: all of expert 0's, then all of expert 1's.
    /// Returns the index of the first. All of a group have the same `experts`.
    size_t declare(std::vector<Parameter> group);
    /// Every tensor gets an owner among the ranks that have it (model/sharding.hpp); after freezing, before allocate().
    void shard();
    /// Allocates the arrays on the device of `place` for a compute type (f32, bf16, f64); gradients only if asked for. Weights are zero until initialised or loaded.
    void allocate(DType compute, bool gradients, const Context& place = Context()) { allocate(compute, gradients, compute, place); }
    /// The same with another type for the forward of layers: the compute type or the master type. Of bf16's roundings those of the forward are the ones that
    /// cost: T5's attention scores are not scaled down, and an error of queries and keys moves probabilities by several per cent. With a forward in f32 and a
    /// backward in bf16 gradients of small random T5s are 10 to 25 times closer to the exact ones (test/README.md).
    void allocate(DType compute, bool gradients, DType forward, const Context& place = Context());
    /// What allocate() takes of an engine.
    ArrayBytes array_bytes(DType compute, bool gradients, DType forward) const;
    /// The same `masters` of each replica (data x expert ranks) of this tensor rank.
    std::vector<int64_t> master_bytes_of_replicas(DType compute, DType forward) const;
    /// Replicas that a tensor's owner is, of every expert rank; all of them if it has none.
    std::vector<int> replicas_that_update(const Parameter& p, int64_t tensor) const;
    /// initialise_tensor() of every record, and the compute copy.
    void initialise(uint64_t seed);
    /// Refreshes the compute copy from the master weights.
    void update_compute() const;
    void zero_gradients() const;

    const std::vector<Parameter>& records() const { return records_; }
    std::vector<Parameter>& records() { return records_; }
    const Parameter* find(std::string_view name) const;  ///< by pattern name; null if there is none
    int64_t parameter_count() const;  ///< of the whole model
    const Mesh& mesh() const { return *mesh_; }
    /// Those that have the same tensors of a record, and sum their gradients.
    Communicator& ranks_of(const Parameter& p) const { return p.experts > 0 && mesh_->shape().expert > 1 ? mesh_->data() : mesh_->replicas(); }
    bool is_sharded() const { return sharded_; }
    /// Whether this rank updates a tensor.
    bool updates(const Parameter& p, int64_t tensor) const { return p.owners.empty() || p.owner(tensor) == ranks_of(p).rank(); }
    /// Whether everyone of ranks_of() has the master weights; else they have the compute copy alone.
    bool has_common_master(const Parameter& p) const { return held_.empty() || p.owners.empty() || p.full_precision; }

    DType compute_type() const { return compute_type_; }
    DType forward_type() const { return forward_type_; }
    DType master_type() const { return accumulate_type(compute_type_); }
    /// This rank's part of a tensor, of those it has the `tensor`-th; empty master weights where only the tensor's owner has them.
    Tensor master(const Parameter& p, int64_t tensor = 0) const { return Tensor(masters(p.tensor_offset(tensor), p.part.elements()).data, master_type(), p.part); }
    Tensor gradient(const Parameter& p, int64_t tensor = 0) const { return at(gradient_, master_type(), p.tensor_offset(tensor), p.part); }
    Tensor compute(const Parameter& p, int64_t tensor = 0) const { return at(compute_, compute_type_, p.tensor_offset(tensor), p.part); }
    /// What everyone of ranks_of() has alike: master weights or compute copy.
    Tensor common(const Parameter& p, int64_t tensor = 0) const { return has_common_master(p) ? master(p, tensor) : compute(p, tensor); }
    Engine& engine() const { return *engine_; }
    Context context() const { return Context(device_, *engine_); }  ///< that works on its memory
    /// Elements of the flat order, as vectors; empty master weights if this rank has not all of them.
    Tensor masters(int64_t first, int64_t elements) const;
    Tensor gradients(int64_t first, int64_t elements) const { return at(gradient_, master_type(), first, {elements}); }
    Tensor computes(int64_t first, int64_t elements) const { return at(compute_, compute_type_, first, {elements}); }
    /// All gradients as one vector; the alignment gaps between groups are zero.
    Tensor flat_gradient() const { return Tensor(gradient_, master_type(), {flat_}); }

private:
    static Tensor at(void* base, DType type, int64_t first, Shape shape) {
        return Tensor(base ? static_cast<char*>(base) + first * size_of(type) : nullptr, type, shape);
    }
    /// Of the flat order; the master weights of a run begin at element `place` of their array.
    struct HeldRun {
        int64_t first, elements, place;
    };
    /// Whether of a sharded store only owners have the master weights.
    bool divides_masters(DType compute, DType forward) const { return sharded_ && compute != accumulate_type(compute) && forward != accumulate_type(compute); }
    std::vector<HeldRun> held_runs() const;
    static int64_t lay_out(std::vector<HeldRun>& runs);

    const Mesh* mesh_;
    std::vector<Parameter> records_;
    bool sharded_ = false;
    std::vector<HeldRun> held_;  ///< what this rank has of the master weights, last first; empty: all
    int64_t flat_ = 0;
    DType compute_type_ = DType::f32, forward_type_ = DType::f32;
    Device device_ = Device::cpu;
    Engine* engine_ = nullptr;
    std::vector<Buffer> memory_;
    void *master_ = nullptr, *gradient_ = nullptr, *compute_ = nullptr;
};

}  // namespace flanmoe
