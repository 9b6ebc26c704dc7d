// The whole model: embedding, encoder, decoder, output layer and loss; forward and backward of one micro-batch.
//
// Encoder-decoder: the encoder reads encoder_ids, the decoder predicts decoder_targets from decoder_ids and the encoder's output. Decoder-only: the decoder
// alone. The loss is the part of the step's loss that this micro-batch contributes: see LossScales.
//
// On a mesh every replica (data x expert rank) has micro-batches of its own, of one shape; its tensor ranks have the same one. Tensor ranks share the
// vocabulary: rows of the embedding table and of the output matrix. What train() and evaluate() return is of this replica's tokens, alike on its tensor ranks.
#pragma once

#include "data/batch.hpp"
#include "model/batch_tensors.hpp"
#include "model/stack.hpp"
#include "ops/cross_entropy.hpp"

#include <string>
#include <vector>

namespace flanmoe {

/// What one sparse layer did: sums over groups and tokens (ops::RouteStatistic) and by expert. Adding two gives those of both.
struct RoutingReport {
    bool decoder = false;
    int block = 0;
    std::vector<double> statistics;
    std::vector<double> load;    ///< rows kept by each expert
    std::vector<double> demand;  ///< choices of each expert, kept or not
    double operator[](ops::RouteStatistic s) const { return statistics[static_cast<size_t>(s)]; }
};

/// Sums over micro-batches; means are taken at the end of the step.
struct LossSums {
    ops::CrossEntropySums output;
    std::vector<RoutingReport> routing;  ///< one a sparse layer, encoder first

    void add(const LossSums& other);
    double cross_entropy() const;  ///< mean nll of a target token
    double output_z() const;       ///< mean lse^2 of a target token
    double balance() const;        ///< mean over sparse layers of each layer's mean over groups
    double router_z() const;
};

struct TransformerSaved {
    Tensor encoder_ids, decoder_ids, targets;
    Sequence encoder, decoder;
    StackSaved encoder_stack, decoder_stack;
};

/// What the router of one sparse layer decided; points into TransformerSaved.
struct RoutedLayer {
    bool decoder;
    int block;
    const ops::RouteArgs* route;
};

class Transformer {
public:
    /// Declares every parameter, this rank's part of it; allocates nothing. The shapes have been checked: validate() for a config, read_model_config() for a
    /// checkpoint; whether they divide over the mesh (which must outlive the model) is checked here (Exit::usage).
    explicit Transformer(const ModelConfig& config, const Mesh& mesh = one_rank());

    const ModelConfig& config() const { return config_; }
    ParameterStore& parameters() { return parameters_; }
    const ParameterStore& parameters() const { return parameters_; }

    /// The encoder's output [rows * encoder_length, D].
    Tensor encode(Pass& pass, const BatchTensors& batch, TransformerSaved& saved) const;
    /// Forward of both stacks; returns the decoder's output [rows * decoder_length, D].
    Tensor forward(Pass& pass, const BatchTensors& batch, TransformerSaved& saved) const;
    Tensor forward(Pass& pass, const Batch& batch, TransformerSaved& saved) const { return forward(pass, upload(pass.context, config_, batch), saved); }
    /// Forward and backward of one micro-batch: adds to the gradients, and its sums to `report` (f64 [report_size()], ops/report.hpp), all on the device. The
    /// arena is left as it was found.
    void train(const Pass& pass, const BatchTensors& batch, const Tensor& report) const;
    /// Loss without gradients, in the memory of one sub-layer at a time and the sums between them; token_nll, if given, gets nll per decoder position (0 where ignored).
    LossSums evaluate(const Pass& given, const Batch& batch, std::vector<double>* token_nll = nullptr) const;
    /// Logits [N, V] in the accumulation type of a decoder output.
    Tensor logits(Pass& pass, const Tensor& hidden) const;
    /// nll of the targets (i32 [N]) after a decoder output, on the host; 0 where ignored.
    std::vector<double> target_nll(Pass& pass, const Tensor& hidden, const Tensor& targets) const;

    const Stack& encoder() const { return encoder_; }
    const Stack& decoder() const { return decoder_; }
    Tensor embed(Pass& pass, const Tensor& ids) const;  ///< [N, D], accumulation type
    /// Loss-free balancing of the routers that have a bias, after a step with this report, unless accepted (f64 [1]) is NaN (ops/report.hpp).
    void update_balance_biases(Context& context, const Tensor& report, const Tensor& accepted) const;
    /// The sparse layers of a forward pass, encoder first.
    std::vector<RoutedLayer> routed_layers(const TransformerSaved& saved) const;
    int64_t sparse_layers() const { return static_cast<int64_t>(config_.encoder_sparse.size() + config_.decoder_sparse.size()); }
    int64_t report_size() const;
    /// What report_size() numbers on the host say.
    LossSums read_report(const double* report) const;

private:
    Tensor cross_entropy(Pass& pass, const Tensor& hidden, const Tensor& targets, const Tensor& d_hidden, const Tensor& token_nll) const;
    void loss(Pass& pass, const Tensor& hidden, const TransformerSaved& saved, const Tensor& d_hidden, const Tensor& token_nll, const Tensor& report) const;
    size_t head() const { return config_.tied ? embedding_ : head_; }
    double logit_scale() const;

    ModelConfig config_;
    ParameterStore parameters_;
    size_t embedding_ = 0, head_ = 0;
    Stack encoder_, decoder_;
};

/// Why experts do not divide over the mesh's expert ranks, or heads and feed-forward widths over its tensor ranks; empty if they do.
std::string division_problem(const ModelConfig& config, const MeshShape& mesh);
/// Exit::usage with that sentence.
void check_division(const ModelConfig& config, const MeshShape& mesh);

/// Routing groups of a step that have at least one routable token: the normalisers of LossScales, where they are at least 1.
void count_groups(const ModelConfig& config, const StepBatch& batches, LossScales& scales);

}  // namespace flanmoe
