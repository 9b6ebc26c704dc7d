// One step of a model on a mesh of threads: each replica with its own rows of the batch, gradients summed as training sums them.
#pragma once

#include "comm/threads.hpp"
#include "model/families.hpp"
#include "model/gradient_sync.hpp"
#include "train/step.hpp"

#include <map>
#include <mutex>

namespace flanmoe::test {

/// 13 layouts over 1, 2, 4 and 8 ranks, as data x expert x tensor.
inline std::vector<MeshShape> all_layouts() {
    return {{1, 1, 1}, {2, 1, 1}, {1, 2, 1}, {1, 1, 2}, {4, 1, 1}, {2, 2, 1}, {2, 1, 2}, {1, 2, 2}, {1, 4, 1}, {1, 1, 4}, {2, 2, 2}, {1, 4, 2}, {4, 1, 2}};
}
/// The same for a model without experts.
inline std::vector<MeshShape> dense_layouts() { return {{1, 1, 1}, {2, 1, 1}, {1, 1, 2}, {4, 1, 1}, {2, 1, 2}, {1, 1, 4}, {8, 1, 1}, {4, 1, 2}, {2, 1, 4}}; }

/// This replica's rows of every micro-batch.
inline StepBatch share_of(const StepBatch& whole, const Mesh& mesh) {
    StepBatch own;
    for (const Batch& b : whole) own.push_back(cut(b, b.rows * mesh.replica_index() / mesh.shape().replicas(), b.rows / mesh.shape().replicas()));
    return own;
}

/// Rows and columns of the whole tensor that a part has.
struct PartRange {
    int64_t first_row = 0, first_col = 0;
    explicit PartRange(const Parameter& p) {
        if (p.split == Split::columns) first_col = p.first;
        else if (p.shape.rank == 1) first_col = p.first;
        else first_row = p.first;
    }
};

/// Calls body(index in the part, index in the whole tensor) for every element of a part.
template <class Body>
void for_part(const Parameter& p, Body&& body) {
    const PartRange range(p);
    const int64_t cols = p.part[-1], rows = p.part.elements() / cols;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) body(r * cols + c, (range.first_row + r) * p.shape[-1] + range.first_col + c);
}

inline std::vector<double> values_of(const Tensor& t) {
    std::vector<double> values(static_cast<size_t>(t.elements()));
    for (size_t i = 0; i < values.size(); ++i) values[i] = t.dtype == DType::f64 ? t.as<double>()[i] : t.as<float>()[i];
    return values;
}

/// Whole tensors by name.
using NamedValues = std::map<std::string, std::vector<double>>;

/// Weights of a model of one rank, or their gradients.
inline NamedValues values_of(const ParameterStore& store, bool gradients) {
    NamedValues values;
    for (const Parameter& p : store.records())
        for (int64_t e = 0; e < p.part_tensors(); ++e) values[p.part_name(e)] = values_of(gradients ? store.gradient(p, e) : store.master(p, e));
    return values;
}

/// Writes a rank's parts of whole tensors into its store.
inline void load_parts(ParameterStore& store, const NamedValues& values) {
    for (const Parameter& p : store.records())
        for (int64_t e = 0; e < p.part_tensors(); ++e) {
            const Tensor to = store.master(p, e);
            const std::vector<double>& whole = values.at(p.part_name(e));
            for_part(p, [&](int64_t i, int64_t j) {
                const double w = whole[static_cast<size_t>(j)];
                if (to.dtype == DType::f64) to.as<double>()[i] = w;
                else to.as<float>()[i] = static_cast<float>(w);
            });
        }
    store.update_compute();
}

/// One rank's gradients of the step whose batches of all replicas are `whole`; returns the sums of the whole step.
inline LossSums step_on(Context& context, Transformer& model, const StepBatch& whole, const LossCoefficients& coefficients, Recompute recompute = Recompute::none,
                        bool sequence_parallel = false) {
    LossScales scales{coefficients.balance, coefficients.router_z, coefficients.output_z, 0, 1, 1};
    for (const Batch& b : whole) scales.tokens += b.target_tokens();
    count_groups(model.config(), whole, scales);
    model.parameters().zero_gradients();
    Pass pass{.context = context, .parameters = model.parameters(), .config = model.config(), .training = true, .seed = 3, .step = 7, .loss = scales};
    pass.recompute = recompute, pass.sequence_parallel = sequence_parallel;
    const auto exchange_lane = context.engine->make_lane();
    pass.exchange_lane = exchange_lane.get(), pass.exchange_chunks = 2;
    Arena::Scope scope(context.arena);
    const Tensor report = context.zeros(DType::f64, {model.report_size()});
    GradientSync sync(model.parameters(), 1 << 12);  // several buckets
    const StepBatch own = share_of(whole, model.parameters().mesh());
    for (const Batch& b : own) {
        if (&b == &own.back()) pass.sync = &sync;
        model.train(pass, upload(context, model.config(), b), report);
    }
    sync.finish();
    model.parameters().mesh().replicas().all_reduce(context, report);
    return model.read_report(context.download<double>(report).data());
}

/// What ranks found wrong, gathered for the thread that checks.
class Findings {
public:
    template <class... Args>
    void add(fmt::format_string<Args...> format, Args&&... args) {
        const std::lock_guard lock(mutex_);
        if (text_.size() < 2000) text_ += fmt::format(format, std::forward<Args>(args)...) + "\n";
    }
    std::string text() const { return text_; }

private:
    std::mutex mutex_;
    std::string text_;
};

/// Compares a rank's gradients with the whole ones, tensor by tensor: largest difference by the tensor's largest gradient.
inline void compare_gradients(const ParameterStore& store, const NamedValues& expected, double tolerance, Findings& findings, double* worst = nullptr) {
    for (const Parameter& p : store.records())
        for (int64_t e = 0; e < (p.frozen ? 0 : p.part_tensors()); ++e) {  // gradients of frozen parts are not summed
            const std::vector<double>& whole = expected.at(p.part_name(e));
            const std::vector<double> own = values_of(store.gradient(p, e));
            double largest = 0, difference = 0;
            for (const double g : whole) largest = std::max(largest, std::abs(g));
            for_part(p, [&](int64_t i, int64_t j) {
                const double d = std::abs(own[static_cast<size_t>(i)] - whole[static_cast<size_t>(j)]);
                difference = d > difference || std::isnan(d) ? d : difference;
            });
            if (worst && largest > 0) *worst = std::max(*worst, difference / largest);
            if (!(difference <= tolerance * largest)) findings.add("{} on rank {}: differs by {:.2e} of {:.2e}", p.part_name(e), store.mesh().world().rank(), difference, largest);
        }
}

}  // namespace flanmoe::test
