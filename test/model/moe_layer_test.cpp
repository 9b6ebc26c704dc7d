// The MoE layer by itself, for every family of routers: gradients of its input, router, experts and biases through answers and router losses; what it adds
// to a token is what the definition says.
#include "model/moe_layer.hpp"

#include "model/families.hpp"
#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <cstring>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

/// The last sparse layer of a family's model, with an input of 3 rows of 9 tokens, some of them padding.
struct Layer {
    ModelConfig config;
    Transformer model;
    Context context;
    const MoeLayer* layer = nullptr;
    Sequence sequence;
    Tensor x, cotangent;
    MoeSaved saved;
    Pass pass;

    explicit Layer(const ModelConfig& c, bool decoder) : config(c), model(c), pass{.context = context, .parameters = model.parameters(), .config = config, .training = true, .seed = 3, .step = 7} {
        model.parameters().allocate(DType::f64, true);
        randomise(model, 5);
        for (const SubLayer& s : (decoder ? model.decoder() : model.encoder()).sublayers)
            if (const auto* moe = std::get_if<MoeLayer>(&s.body)) layer = moe;
        require(layer, "a sparse layer");
        sequence.rows = 3, sequence.length = 9;
        sequence.routed = make(context, DType::u8, {27});
        for (int64_t n = 0; n < 27; ++n) set(sequence.routed, 0, n, n % 9 < 9 - n / 9);
        x = random(context, DType::f64, {27, config.d_model}, 1), cotangent = random(context, DType::f64, {27, config.d_model}, 2);
        pass.loss = {.balance = 0.3, .router_z = 0.1, .encoder_groups = 3, .decoder_groups = 3};
    }
    Tensor forward() { return moe_forward(pass, *layer, x, sequence, saved); }
    double loss() {
        Arena::Scope scope(context.arena);
        const double answer = dot(cotangent, forward());
        const double* sums = saved.route.statistics.as<double>();
        const double layers = static_cast<double>(config.encoder_sparse.size() + config.decoder_sparse.size());
        return answer + (0.3 * sums[static_cast<int>(ops::RouteStatistic::balance)] + 0.1 * sums[static_cast<int>(ops::RouteStatistic::z)]) / (3 * layers);
    }
    std::vector<size_t> records() const {
        std::vector<size_t> all = {layer->router, layer->input, layer->output};
        if (config.expert_gated) all.push_back(layer->input + 1);
        if (config.multiplicative_bias) all.push_back(layer->scale);
        return all;
    }
};

}  // namespace

TEST_SUITE("model/moe_layer") {
    TEST_CASE("gradients of the layer of every family") {
        for (const Family& family : families()) {
            for (const bool decoder : {false, true}) {
                if (!decoder && !family.config.encoder_decoder) continue;
                CAPTURE(family.name);
                Layer l(family.config, decoder);
                l.model.parameters().zero_gradients();
                l.forward();
                const Tensor d_delta = convert(l.context, l.cotangent, DType::f64), dx = moe_backward(l.pass, *l.layer, l.sequence, d_delta, l.saved);
                gradient_check("MoE layer, input", [&] { return l.loss(); }, {{l.x, convert(l.context, dx, DType::f64)}}, 11, 2e-5);
                for (const size_t index : l.records()) {
                    const Parameter& p = l.model.parameters().records()[index];
                    for (int64_t e = 0; e < p.tensors(); ++e) {
                        CAPTURE(p.tensor_name(e));
                        const Tensor gradient = convert(l.context, l.model.parameters().gradient(p, e), DType::f64);
                        if (dot(gradient, gradient) > 0) gradient_check("MoE layer, parameters", [&] { return l.loss(); }, {{l.model.parameters().master(p, e), gradient}}, 12, 2e-5);
                    }
                }
            }
        }
    }

    TEST_CASE("a token gets the sum of its experts' answers, weighted; gated experts scale their hidden units by their bias") {
        ModelConfig config = routed_model("top_k", true);
        config.multiplicative_bias = true, config.expert_dropout = 0, config.expert_activation = Activation::relu;
        Layer l(config, false);
        const Tensor delta = l.forward();
        const ops::RouteArgs& route = l.saved.route;
        const ParameterStore& store = l.model.parameters();
        const auto matrix = [&](size_t index, int64_t e) { return store.master(store.records()[index], e); };
        std::vector<double> expected(static_cast<size_t>(27 * config.d_model), 0.0);
        for (int64_t e = 0; e < config.experts; ++e)
            for (int32_t r = route.offsets.as<int32_t>()[e]; r < route.offsets.as<int32_t>()[e + 1]; ++r) {
                const int64_t n = route.row_token.as<int32_t>()[r];
                for (int64_t f = 0; f < config.expert_d_ff; ++f) {
                    double gate = 0, linear = 0;
                    for (int64_t d = 0; d < config.d_model; ++d) gate += get(l.x, n, d) * get(matrix(l.layer->input, e), f, d), linear += get(l.x, n, d) * get(matrix(l.layer->input + 1, e), f, d);
                    const double hidden = std::max(gate, 0.0) * linear * get(matrix(l.layer->scale, e), 0, f);
                    for (int64_t d = 0; d < config.d_model; ++d)
                        expected[static_cast<size_t>(n * config.d_model + d)] += get(route.row_gate, 0, r) * hidden * get(matrix(l.layer->output, e), d, f);
                }
            }
        compare("MoE layer", delta, Tensor(expected.data(), DType::f64, {27, config.d_model}), DType::f64, Kind::chain);
        for (int64_t n = 0; n < 27; ++n)  // padding gets nothing
            if (get(l.sequence.routed, 0, n) == 0) CHECK(dot(delta.slice_rows(n, 1), delta.slice_rows(n, 1)) == 0);
    }
}
