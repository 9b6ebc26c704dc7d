#include "config/dense_twin.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe {

namespace {

constexpr double tolerance = 0.01;  // of a stack's FLOPs

// Everything is counted in multiplications per token and unit of d_model.
double matrices(bool gated) { return gated ? 3 : 2; }

double experts_of_a_token(const RoutingConfig& routing) { return routing.kind == RouterKind::expert_choice ? routing.capacity_factor : static_cast<double>(routing.k); }

struct StackTwin {
    std::vector<int64_t> widths;  // of every layer
    double difference = 0;
};

StackTwin twin_of_stack(const ModelConfig& c, bool decoder, bool count_router) {
    const std::vector<int64_t>& sparse = decoder ? c.decoder_sparse : c.encoder_sparse;
    const int64_t layers = decoder ? c.decoder_layers : c.encoder_layers;
    const double queries = static_cast<double>(c.heads * c.d_kv), keys = static_cast<double>(c.key_heads() * c.d_kv), router = static_cast<double>(c.experts);
    const double attention = (decoder && c.encoder_decoder ? 4.0 : 2.0) * (queries + keys);
    const double experts = experts_of_a_token(decoder ? c.decoder_routing : c.encoder_routing), width_of_expert = static_cast<double>(c.expert_width());
    const double chosen = matrices(c.expert_gated) * (experts * width_of_expert + static_cast<double>(c.shared_d_ff));
    StackTwin twin;
    double before = 0, after = 0;
    for (int64_t layer = 0; layer < layers; ++layer) {
        const double dense = matrices(c.gated) * static_cast<double>(dense_width(c, decoder, layer));
        int64_t width = dense_width(c, decoder, layer);
        double cost = dense;
        if (std::find(sparse.begin(), sparse.end(), layer) != sparse.end()) {
            const double products = chosen + (c.extra_ffn ? dense : 0);
            width = std::max<int64_t>(1, std::llround((products + (count_router ? router : 0)) / matrices(c.gated)));
            cost = products + router;
        }
        twin.widths.push_back(width);
        before += attention + cost;
        after += attention + matrices(c.gated) * static_cast<double>(width);
    }
    if (layers > 0) twin.difference = after / before - 1;
    return twin;
}

}  // namespace

DenseTwin dense_twin(const ModelConfig& sparse) {
    DenseTwin result{sparse};
    ModelConfig& model = result.model;
    model.dense_twin = false;
    if (sparse.experts == 0) return result;
    StackTwin encoder, decoder;
    for (const bool count_router : {false, true}) {
        encoder = twin_of_stack(sparse, false, count_router), decoder = twin_of_stack(sparse, true, count_router);
        result.difference = std::fabs(encoder.difference) > std::fabs(decoder.difference) ? encoder.difference : decoder.difference;
        if (std::fabs(result.difference) <= tolerance) break;
    }
    model.experts = 0, model.extra_ffn = false, model.shared_d_ff = 0, model.shared_gate = false;
    model.encoder_sparse.clear(), model.decoder_sparse.clear();
    model.encoder_d_ff = encoder.widths, model.decoder_d_ff = decoder.widths;
    std::vector<int64_t> all = encoder.widths;
    all.insert(all.end(), decoder.widths.begin(), decoder.widths.end());
    if (std::all_of(all.begin(), all.end(), [&](int64_t width) { return width == all[0]; })) {
        model.d_ff = all[0];
        model.encoder_d_ff.clear(), model.decoder_d_ff.clear();
    }
    return result;
}

}  // namespace flanmoe
