#include "model/flops.hpp"

#include <algorithm>

namespace flanmoe {

double active_share(const RoutingConfig& routing, int64_t experts) {
    const double chosen = routing.kind == RouterKind::expert_choice ? routing.eval_capacity_factor : static_cast<double>(routing.k);
    return std::min(1.0, chosen / static_cast<double>(experts));
}

namespace {

double feed_forward(const ModelConfig& c, double d_ff, bool gated) { return 2.0 * static_cast<double>(c.d_model) * d_ff * (gated ? 3 : 2); }

// Feed-forward part of all blocks of a stack, per token.
double feed_forwards(const ModelConfig& c, bool decoder) {
    const std::vector<int64_t>& sparse = decoder ? c.decoder_sparse : c.encoder_sparse;
    const RoutingConfig& routing = decoder ? c.decoder_routing : c.encoder_routing;
    const int64_t blocks = decoder ? c.decoder_layers : c.encoder_layers;
    const double width = static_cast<double>(c.expert_width());
    const double experts_per_token = routing.kind == RouterKind::expert_choice ? routing.capacity_factor : static_cast<double>(routing.k);
    const double sparse_layer = experts_per_token * feed_forward(c, width, c.expert_gated) + 2.0 * static_cast<double>(c.d_model * c.experts) +
                                feed_forward(c, static_cast<double>(c.shared_d_ff), c.expert_gated) + (c.shared_gate ? 2.0 * static_cast<double>(c.d_model) : 0);
    double sum = 0;
    for (int64_t i = 0; i < blocks; ++i) {
        const double dense = feed_forward(c, static_cast<double>(dense_width(c, decoder, i)), c.gated);
        const bool is_sparse = c.experts > 0 && std::find(sparse.begin(), sparse.end(), i) != sparse.end();
        sum += is_sparse ? sparse_layer + (c.extra_ffn ? dense : 0) : dense;
    }
    return sum;
}

}  // namespace

double forward_flops(const ModelConfig& c, const SequenceShape& shape) {
    const double d = static_cast<double>(c.d_model), inner = static_cast<double>(c.heads * c.d_kv), keys = static_cast<double>(c.key_heads() * c.d_kv), rows = static_cast<double>(shape.rows);
    const double s = static_cast<double>(shape.source), t = static_cast<double>(shape.target);
    const double projections = 4.0 * d * (inner + keys);  // q, k, v, o of one token
    double encoder = 0;
    if (c.encoder_decoder) {
        const double layers = static_cast<double>(c.encoder_layers);
        encoder = rows * s * (layers * (projections + 4.0 * s * inner) + feed_forwards(c, false));
    }
    const double layers = static_cast<double>(c.decoder_layers);
    double decoder = rows * t * (layers * (projections + 2.0 * t * inner) + feed_forwards(c, true));
    if (c.encoder_decoder) decoder += rows * layers * (t * (4.0 * d * inner + 4.0 * s * inner) + s * 4.0 * d * keys);  // q and o of the target, k and v of the source
    return encoder + decoder + rows * t * 2.0 * d * static_cast<double>(c.vocab_size);
}

}  // namespace flanmoe
