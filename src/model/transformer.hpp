// The whole model: embedding, encoder, decoder, output layer and loss; forward and backward of one micro-batch.
//
// Encoder-decoder: the encoder reads encoder_ids, the decoder predicts decoder_targets from decoder_ids and the encoder's output. Decoder-only: the decoder
// alone. The loss is the part of the step's loss that this micro-batch contributes: see LossScales.
#pragma once

#include "data/batch.hpp"
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
    double loss(const LossScales& scales) const { return cross_entropy() + scales.output_z * output_z() + scales.balance * balance() + scales.router_z * router_z(); }
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
    /// Declares every parameter; allocates nothing. The shapes have been checked: validate() for a config, read_model_config() for a checkpoint.
    explicit Transformer(const ModelConfig& config);

    const ModelConfig& config() const { return config_; }
    ParameterStore& parameters() { return parameters_; }
    const ParameterStore& parameters() const { return parameters_; }

    /// Forward of both stacks; returns the decoder's output [rows * decoder_length, D].
    Tensor forward(Pass& pass, const Batch& batch, TransformerSaved& saved) const;
    /// Forward and backward of one micro-batch: adds to the gradients. The arena is left as it was found.
    LossSums train(Pass& pass, const Batch& batch) const;
    /// Loss without gradients; token_nll, if given, gets nll per decoder position (0 where ignored).
    LossSums evaluate(Pass& pass, const Batch& batch, std::vector<double>* token_nll = nullptr) const;
    /// Logits [N, V] in the accumulation type of a decoder output.
    Tensor logits(Pass& pass, const Tensor& hidden) const;

    const Stack& encoder() const { return encoder_; }
    const Stack& decoder() const { return decoder_; }
    Tensor embed(Pass& pass, const Tensor& ids) const;  ///< [N, D], accumulation type
    /// Loss-free balancing of the routers that have a bias, after an optimizer step with these reports (update_balance_bias).
    void update_balance_biases(const std::vector<RoutingReport>& reports);
    /// The sparse layers of a forward pass, encoder first, and their reports.
    std::vector<RoutedLayer> routed_layers(const TransformerSaved& saved) const;
    std::vector<RoutingReport> routing_reports(const Context& context, const TransformerSaved& saved) const;

private:
    LossSums loss(Pass& pass, const Tensor& hidden, const TransformerSaved& saved, const Tensor& d_hidden, const Tensor& token_nll) const;
    Tensor head_weight(const Pass& pass) const { return pass.weight(config_.tied ? embedding_ : head_); }
    double logit_scale() const;

    ModelConfig config_;
    ParameterStore parameters_;
    size_t embedding_ = 0, head_ = 0;
    Stack encoder_, decoder_;
};

/// Routing groups of a step that have at least one routable token: the normalisers of LossScales.
void count_groups(const ModelConfig& config, const StepBatch& batches, LossScales& scales);

}  // namespace flanmoe
