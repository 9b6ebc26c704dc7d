#include "model/parameters.hpp"

#include "core/parallel.hpp"
#include "core/random.hpp"
#include "model/sharding.hpp"
#include "ops/elementwise.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <tuple>

namespace flanmoe {

namespace {

constexpr int64_t alignment = 64;  // elements between groups: whole cache lines in every type

int64_t bytes_of_array(DType type, int64_t elements) { return std::max<int64_t>(alignment, elements * size_of(type) + alignment - 1) / alignment * alignment; }

// FNV-1a; names a parameter's random stream, so that adding a parameter changes no other.
uint64_t hash_of(std::string_view name) {
    uint64_t h = 0xcbf29ce484222325u;
    for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return h;
}

// Standard normal number i of a key's stream (Box-Muller on two 32-bit words).
double normal(const RandomKey& key, uint64_t i) {
    const auto block = random_block(key, i);
    const double u = (static_cast<double>(block[0]) + 0.5) * 0x1p-32, v = static_cast<double>(block[1]) * 0x1p-32;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * 3.14159265358979323846 * v);
}

// Normal cut at two deviations by redrawing, rescaled so that its deviation is 1 (as T5X's truncated initialisers are).
double truncated_normal(RandomKey key, uint64_t i) {
    constexpr double deviation_of_cut = 0.87962566103423978;
    for (key.layer = 0; key.layer < 64; ++key.layer) {
        const double x = normal(key, i);
        if (std::fabs(x) <= 2.0) return x / deviation_of_cut;
    }
    return 0.0;
}

template <class T>
void fill(T* values, int64_t count, const Parameter& p, const RandomKey& key, uint64_t first) {
    parallel_for(count, 4096, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const uint64_t element = first + static_cast<uint64_t>(i);
            double value = 0;
            if (p.init == Init::ones) value = 1;
            if (p.init == Init::normal) value = p.deviation * normal(key, element);
            if (p.init == Init::truncated_normal) value = p.deviation * truncated_normal(key, element);
            values[i] = static_cast<T>(value);
        }
    });
}

}  // namespace

std::string Parameter::tensor_name(int64_t expert) const {
    const size_t at = name.find("{e}");
    if (at == std::string::npos) return name;
    return name.substr(0, at) + std::to_string(expert) + name.substr(at + 3);
}

void initialise_tensor(const Parameter& p, int64_t expert, uint64_t seed, const Tensor& into) {
    const uint64_t h = hash_of(p.tensor_name(expert));
    const RandomKey key{seed ^ h, static_cast<uint32_t>(h >> 32), 0, Purpose::initialise};
    // Runs of the part that are runs of the whole tensor: its rows, or all of it.
    const bool columns = p.split == Split::columns && p.is_split();
    const int64_t run = columns ? into.cols() : into.elements(), stride = p.shape[-1];
    for (int64_t i = 0; i * run < into.elements(); ++i) {
        const int64_t first = columns ? i * stride + p.first : p.shape.rank > 1 ? p.first * stride : p.first;
        if (into.dtype == DType::f64) {
            fill(into.as<double>() + i * run, run, p, key, static_cast<uint64_t>(first));
        } else {
            fill(into.as<float>() + i * run, run, p, key, static_cast<uint64_t>(first));
        }
    }
}

std::pair<int64_t, int64_t> share_of(int64_t size, int64_t rank, int64_t ranks) {
    const int64_t begin = size * rank / ranks;
    return {begin, size * (rank + 1) / ranks - begin};
}

Shape part_of(const Shape& shape, Split split, int64_t rank, int64_t ranks, int64_t& first) {
    Shape part = shape;
    first = 0;
    if (split == Split::none) return part;
    int64_t& size = part.sizes[split == Split::rows ? 0 : part.rank - 1];
    std::tie(first, size) = share_of(size, rank, ranks);
    return part;
}

size_t ParameterStore::declare(std::vector<Parameter> group) {
    require(!group.empty(), "a group of at least one parameter");
    const size_t first = records_.size();
    int64_t stride = 0;
    for (Parameter& p : group) {
        p.part = part_of(p.shape, p.split, mesh_->tensor_index(), mesh_->shape().tensor, p.first);
        std::tie(p.first_expert, p.part_experts) = share_of(p.experts, mesh_->expert_index(), mesh_->shape().expert);
        stride += p.part.elements();
    }
    int64_t offset = flat_;
    for (Parameter& p : group) {
        require(p.experts == group[0].experts, "parameters of one group with the same number of experts");
        p.offset = offset;
        p.expert_stride = stride;
        offset += p.part.elements();
        records_.push_back(std::move(p));
    }
    flat_ += (stride * records_[first].part_tensors() + alignment - 1) / alignment * alignment;
    return first;
}

void ParameterStore::shard() {
    std::vector<std::vector<int>> owners = owners_of(records_, mesh_->shape());
    for (size_t i = 0; i < records_.size(); ++i) {
        records_[i].owners = std::move(owners[i]);
        sharded_ |= !records_[i].owners.empty();
    }
}

std::vector<int> ParameterStore::replicas_that_update(const Parameter& p, int64_t tensor) const {
    const MeshShape& mesh = mesh_->shape();
    if (!p.owners.empty() && !(p.experts > 0 && mesh.expert > 1)) return {p.owner(tensor)};
    std::vector<int> replicas(static_cast<size_t>(p.owners.empty() ? mesh.replicas() : mesh.expert));
    std::iota(replicas.begin(), replicas.end(), p.owners.empty() ? 0 : p.owner(tensor) * mesh.expert);
    return replicas;
}

std::vector<ParameterStore::HeldRun> ParameterStore::held_runs() const {
    const auto here = [&](const Parameter& p, int64_t tensor) { return p.full_precision || updates(p, tensor) ? std::optional(0) : std::nullopt; };
    std::vector<HeldRun> runs;
    for (const FlatRun& run : flat_runs(*this, flat_, here)) runs.push_back({run.first, run.elements, 0});
    return runs;
}

// Runs keep their alignment, so that kernels do the same to them as to the whole array. Returns the elements of the array.
int64_t ParameterStore::lay_out(std::vector<HeldRun>& runs) {
    int64_t end = 0;
    for (HeldRun& run : runs) {
        run.place = (end + alignment - 1) / alignment * alignment + run.first % alignment;
        end = run.place + run.elements;
    }
    return end;
}

ArrayBytes ParameterStore::array_bytes(DType compute, bool gradients, DType forward) const {
    const DType master = accumulate_type(compute);
    std::vector<HeldRun> held;
    if (divides_masters(compute, forward)) held = held_runs();
    return {bytes_of_array(master, held.empty() ? flat_ : lay_out(held)), gradients ? bytes_of_array(master, flat_) : 0, compute == master ? 0 : bytes_of_array(compute, flat_)};
}

// All replicas at once, tensor by tensor as flat_runs() goes: a tensor joins the run of who has its neighbour too.
std::vector<int64_t> ParameterStore::master_bytes_of_replicas(DType compute, DType forward) const {
    const auto replicas = static_cast<size_t>(mesh_->shape().replicas());
    if (!divides_masters(compute, forward)) return std::vector<int64_t>(replicas, array_bytes(compute, false, forward).masters);
    std::vector<std::pair<const Parameter*, int64_t>> tensors;
    for (const Parameter& p : records_)
        for (int64_t t = 0; t < p.part_tensors(); ++t) tensors.emplace_back(&p, t);
    std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.first->tensor_offset(a.second) > b.first->tensor_offset(b.second); });
    std::vector<std::vector<HeldRun>> runs(replicas);
    std::vector<size_t> next(replicas, tensors.size());  // the tensor that would join
    std::vector<int> all(replicas);
    std::iota(all.begin(), all.end(), 0);
    for (size_t i = 0; i < tensors.size(); ++i) {
        const auto& [p, tensor] = tensors[i];
        const int64_t first = p->tensor_offset(tensor), elements = p->part.elements();
        for (const int r : p->full_precision ? all : replicas_that_update(*p, tensor)) {
            std::vector<HeldRun>& own = runs[static_cast<size_t>(r)];
            if (next[static_cast<size_t>(r)] == i) own.back() = {first, own.back().first + own.back().elements - first, 0};
            else own.push_back({first, elements, 0});
            next[static_cast<size_t>(r)] = i + 1;
        }
    }
    std::vector<int64_t> bytes;
    for (std::vector<HeldRun>& own : runs) bytes.push_back(bytes_of_array(accumulate_type(compute), lay_out(own)));
    return bytes;
}

Tensor ParameterStore::masters(int64_t first, int64_t elements) const {
    if (held_.empty()) return at(master_, master_type(), first, {elements});
    const auto run = std::find_if(held_.begin(), held_.end(), [&](const HeldRun& r) { return r.first <= first; });
    if (run == held_.end() || first + elements > run->first + run->elements) return Tensor();
    return at(master_, master_type(), run->place + first - run->first, {elements});
}

void ParameterStore::allocate(DType compute, bool gradients, DType forward, const Context& place) {
    memory_.clear();
    device_ = place.device, engine_ = place.engine;
    compute_type_ = compute, forward_type_ = forward;
    require(forward == compute || forward == master_type(), "a forward in the type of the compute copy or of the master weights");
    const auto array = [&](int64_t bytes) {
        memory_.emplace_back(*engine_, bytes);
        if (!memory_.back().data()) {
            fail(Exit::out_of_memory, "out of memory: the model's {} parameters need {} MB for one of their arrays; choose a smaller model", parameter_count(), bytes >> 20);
        }
        return memory_.back().data();
    };
    const ArrayBytes bytes = array_bytes(compute, gradients, forward);
    held_.clear();
    if (divides_masters(compute, forward)) held_ = held_runs(), lay_out(held_);
    master_ = array(bytes.masters);
    gradient_ = gradients ? array(bytes.gradients) : nullptr;
    compute_ = bytes.compute ? array(bytes.compute) : master_;
}

void ParameterStore::initialise(uint64_t seed) {
    std::vector<char> drawn;  // on the host, whatever the engine
    for (const Parameter& p : records_) {
        for (int64_t e = 0; e < p.part_tensors(); ++e) {
            const Tensor into = master(p, e), copy = compute(p, e);
            drawn.resize(static_cast<size_t>(p.part.elements() * size_of(master_type())));
            const Tensor values(drawn.data(), master_type(), p.part);
            initialise_tensor(p, p.first_expert + e, seed, values);
            if (into) {
                engine_->upload(into.data, drawn.data(), into.bytes());
                continue;
            }
            Context host;
            const Tensor narrow = host.allocate(copy.dtype, p.part);
            ops::cast(host, values, narrow);
            engine_->upload(copy.data, narrow.data, copy.bytes());
        }
    }
    update_compute();
}

void ParameterStore::update_compute() const {
    Context context(device_, *engine_);
    if (compute_ == master_) return;
    const auto cast = [&](int64_t first, int64_t elements) { ops::cast(context, masters(first, elements), computes(first, elements)); };
    if (held_.empty()) cast(0, flat_);
    for (const HeldRun& run : held_) cast(run.first, run.elements);
}

void ParameterStore::zero_gradients() const { engine_->zero(gradient_, flat_ * size_of(master_type())); }

const Parameter* ParameterStore::find(std::string_view name) const {
    for (const Parameter& p : records_)
        if (p.name == name) return &p;
    return nullptr;
}

int64_t ParameterStore::parameter_count() const {
    int64_t n = 0;
    for (const Parameter& p : records_) n += p.elements();
    return n;
}

}  // namespace flanmoe
