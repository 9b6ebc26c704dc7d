#include "model/transformer.hpp"

#include "../ops/check.hpp"
#include "model/decoding.hpp"
#include "small_models.hpp"
#include "train/step.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

const LossCoefficients all_losses{0.01, 0.001, 0.0001};

// Gradient of every parameter, by itself, against a directional derivative of the whole step's loss; dropout and jitter on.
void check_every_gradient(const ModelConfig& config, const StepBatch& batches) {
    Transformer model(config);
    model.parameters().allocate(DType::f64, true);
    model.parameters().initialise(5);
    Context context;
    const StepGradients step = compute_gradients(context, model, batches, all_losses, 3, 7);
    REQUIRE(step.finite());
    const Tensor flat = model.parameters().flat_gradient();
    const std::vector<double> gradient(flat.as<double>(), flat.as<double>() + flat.elements());
    for (const Parameter& p : model.parameters().records()) {
        for (int64_t e = 0; e < p.tensors(); ++e) {
            CAPTURE(p.tensor_name(e));
            const Tensor value = model.parameters().master(p, e);
            const Tensor analytic(const_cast<double*>(gradient.data()) + p.tensor_offset(e), DType::f64, p.shape);
            if (dot(analytic, analytic) == 0) continue;  // an expert without tokens
            // ReLU has kinks: the step is so small that none lies inside it.
            gradient_check("whole model", [&] { return compute_gradients(context, model, batches, all_losses, 3, 7).loss; }, {{value, analytic}}, 11, config.activation == Activation::relu ? 4e-6 : 2e-5);
        }
    }
}

ModelConfig broadcast(ModelConfig config) {
    config.dropout_broadcast = true;
    return config;
}

// Two rows of one token, six places each.
Batch uniform_batch() {
    Batch b;
    b.rows = 2, b.encoder_length = b.decoder_length = 6;
    b.encoder_ids = b.decoder_ids = std::vector<int32_t>(12, 9);
    b.encoder_segments = b.decoder_segments = std::vector<int32_t>(12, 1);
    return b;
}

// Whether the six places of either row hold the same values, but for rounding.
bool places_agree(const Tensor& values) {
    double largest = 0;
    for (int64_t n = 0; n < values.rows(); ++n)
        for (int64_t c = 0; c < values.cols(); ++c) largest = std::max(largest, std::abs(get(values, n, c) - get(values, n / 6 * 6, c)));
    return largest < 1e-12;
}

StepGradients gradients_of(Transformer& model, Context& context, const StepBatch& batches) { return compute_gradients(context, model, batches, all_losses, 3, 7); }

double relative_difference(const std::vector<double>& a, const Tensor& b) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < b.elements(); ++i) {
        const double d = a[static_cast<size_t>(i)] - b.as<double>()[i];
        difference += d * d;
        norm += a[static_cast<size_t>(i)] * a[static_cast<size_t>(i)];
    }
    return std::sqrt(difference / norm);
}

}  // namespace

TEST_SUITE("model/transformer") {
    TEST_CASE("gradients of every parameter: T5 v1.1") { check_every_gradient(small_t5(true), {random_batch(3, 11, 7, 61, 1)}); }
    TEST_CASE("gradients of every parameter: T5 v1.0") { check_every_gradient(small_t5(false), {random_batch(3, 11, 7, 61, 2)}); }
    TEST_CASE("gradients of every parameter: Switch") { check_every_gradient(small_switch(), {random_batch(4, 11, 7, 61, 3), random_batch(4, 11, 7, 61, 4, 4)}); }

    TEST_CASE("gradients of every parameter: decoder-only, rotary positions, shared expert") {
        check_every_gradient(small_decoder(), {random_decoder_batch(3, 15, 61, 3, false), random_decoder_batch(2, 15, 61, 4, false, 3)});
        ModelConfig window = small_decoder();
        window.attention_window = 4, window.decoder_layers = 1, window.decoder_sparse = {0}, window.shared_gate = false, window.extra_ffn = true;
        check_every_gradient(window, {random_decoder_batch(3, 15, 61, 5, false)});
    }
    TEST_CASE("gradients of every parameter: decoder-only, bidirectional prefixes") { check_every_gradient(small_prefix_decoder(), {random_decoder_batch(3, 15, 61, 3, true)}); }
    TEST_CASE("gradients of every parameter: encoder-decoder with rotary positions, biases and shared experts") {
        ModelConfig c = small_decoder();
        c.encoder_decoder = true, c.encoder_layers = 2, c.encoder_sparse = {1}, c.encoder_routing = c.decoder_routing;
        check_every_gradient(c, {random_batch(3, 11, 7, 61, 1)});
    }

    TEST_CASE("gradients of every parameter: dropout masks broadcast along the length") {
        check_every_gradient(broadcast(small_t5(true)), {random_batch(3, 11, 7, 61, 1)});
        check_every_gradient(broadcast(small_switch()), {random_batch(4, 11, 7, 61, 3)});
    }

    TEST_CASE("broadcast dropout: places of a row that hold the same stay the same, but for the encoder's final norm") {
        for (ModelConfig config : {small_t5(), small_switch()}) {
            config.encoder_routing.jitter = config.decoder_routing.jitter = 0;
            config.encoder_routing.dropless = config.decoder_routing.dropless = true;
            for (const bool on : {true, false}) {
                for (const bool attention : {true, false}) {  // attention's own: in the encoder, where all queries see the same keys
                    config.dropout_broadcast = on;
                    config.attention_dropout = attention ? 0.3 : 0;
                    Transformer model(config);
                    model.parameters().allocate(DType::f64, false);
                    model.parameters().initialise(5);
                    for (const Parameter& p : model.parameters().records())  // positions must not tell places apart
                        if (p.name.find("relative_attention_bias") != std::string::npos) std::fill_n(model.parameters().master(p).as<double>(), p.elements(), 0.0);
                    Context context;
                    Pass pass{.context = context, .parameters = model.parameters(), .config = model.config(), .training = true, .seed = 4};
                    TransformerSaved saved;
                    model.forward(pass, uniform_batch(), saved);
                    CHECK(places_agree(saved.encoder_stack.h) == on);
                    CHECK_FALSE(places_agree(saved.encoder_stack.out));
                    if (!attention) CHECK(places_agree(saved.decoder_stack.h) == on);
                    if (!attention) CHECK(places_agree(saved.decoder_stack.out) == on);
                    const Tensor& h = saved.encoder_stack.h;  // rows have masks of their own
                    CHECK(dot(h.slice_rows(0, 1), h.slice_rows(0, 1)) != doctest::Approx(dot(h.slice_rows(6, 1), h.slice_rows(6, 1))).epsilon(1e-6));
                }
            }
        }
    }

    TEST_CASE("micro-batches change nothing but rounding") {
        for (const ModelConfig& config : {small_t5(), small_switch(), small_decoder(), small_prefix_decoder(), broadcast(small_t5()), broadcast(small_switch()), broadcast(small_decoder())}) {
            Transformer model(config);
            model.parameters().allocate(DType::f64, true);
            model.parameters().initialise(5);
            Context context;
            const Batch whole = config.encoder_decoder ? random_batch(6, 11, 7, 61, 9) : random_decoder_batch(6, 15, 61, 9, config.bidirectional_prefix);
            const StepGradients once = gradients_of(model, context, {whole});
            const Tensor flat = model.parameters().flat_gradient();
            const std::vector<double> expected(flat.as<double>(), flat.as<double>() + flat.elements());
            const StepGradients cut_up = gradients_of(model, context, {cut(whole, 0, 1), cut(whole, 1, 3), cut(whole, 4, 2)});
            CHECK(cut_up.loss == doctest::Approx(once.loss).epsilon(1e-13));
            CHECK(relative_difference(expected, flat) < 1e-12);
        }
    }

    TEST_CASE("padding and batch neighbours change no answer") {
        for (const ModelConfig& config : {small_t5(), small_switch()}) {
            Transformer model(config);
            model.parameters().allocate(DType::f64, false);
            model.parameters().initialise(5);
            Context context;
            Pass pass{.context = context, .parameters = model.parameters(), .config = config, .route_rows_alone = true};
            const Batch three = random_batch(3, 11, 7, 61, 12);
            std::vector<double> together, alone;
            model.evaluate(pass, three, &together);
            Batch one = cut(three, 1, 1);
            // The same row with more padding on both sides of the model.
            one.encoder_length += 5, one.decoder_length += 3;
            one.encoder_ids.resize(16, 0), one.encoder_segments.resize(16, 0);
            one.decoder_ids.resize(10, 0), one.decoder_segments.resize(10, 0), one.decoder_targets.resize(10, ignored);
            model.evaluate(pass, one, &alone);
            for (size_t i = 0; i < 7; ++i) CHECK(alone[i] == doctest::Approx(together[7 + i]).epsilon(1e-12));
        }
    }

    TEST_CASE("without gradients a pass needs the memory of one layer and the sums between them") {
        for (ModelConfig config : {small_t5(), small_decoder()}) {
            (config.encoder_decoder ? config.encoder_layers : config.decoder_layers) = 12;
            Transformer model(config);
            model.parameters().allocate(DType::f64, false);
            model.parameters().initialise(5);
            const Batch batch = config.encoder_decoder ? random_batch(8, 40, 3, 61, 12) : random_decoder_batch(8, 40, 61, 12, false);
            const auto peak = [&](auto&& work) {
                Context context;
                Pass pass{.context = context, .parameters = model.parameters(), .config = config, .route_rows_alone = true};
                work(pass);
                return static_cast<double>(context.arena.peak_bytes());
            };
            const double kept = peak([&](Pass& pass) {
                TransformerSaved saved;
                model.forward(pass, batch, saved);
            });
            CHECK(peak([&](Pass& pass) { model.evaluate(pass, batch); }) < 0.35 * kept);
            const double caches = 2.0 * 8 * 40 * static_cast<double>(config.decoder_layers * config.key_heads() * config.d_kv) * 8;
            CHECK(peak([&](Pass& pass) { DecoderCache(model, pass, batch, 1, 1); }) < 0.35 * kept + caches);
        }
    }

    TEST_CASE("packed neighbours change no answer") {
        for (const ModelConfig& config : {small_decoder(), small_prefix_decoder()}) {
            Transformer model(config);
            model.parameters().allocate(DType::f64, false);
            model.parameters().initialise(5);
            Context context;
            Pass pass{.context = context, .parameters = model.parameters(), .config = config, .route_rows_alone = true};
            const Batch packed = random_decoder_batch(1, 15, 61, 12, config.bidirectional_prefix);
            std::vector<double> together, alone;
            model.evaluate(pass, packed, &together);
            for (const int32_t segment : {1, 2}) {  // each by itself, from position 0
                Batch one;
                one.rows = 1;
                std::vector<double> expected;
                for (size_t i = 0; i < 15; ++i) {
                    if (packed.decoder_segments[i] != segment) continue;
                    const auto begin = static_cast<int32_t>(i - one.decoder_ids.size());
                    one.decoder_ids.push_back(packed.decoder_ids[i]), one.decoder_segments.push_back(1), one.decoder_targets.push_back(packed.decoder_targets[i]);
                    if (config.bidirectional_prefix) one.prefix_ends.push_back(packed.prefix_ends[i] ? packed.prefix_ends[i] - begin : 0);
                    expected.push_back(together[i]);
                }
                one.decoder_length = static_cast<int64_t>(one.decoder_ids.size());
                model.evaluate(pass, one, &alone);
                REQUIRE(alone.size() == expected.size());
                for (size_t i = 0; i < alone.size(); ++i) CHECK(alone[i] == doctest::Approx(expected[i]).epsilon(1e-12));
            }
        }
    }

    TEST_CASE("a prefix sees itself in both directions, and nothing else does") {
        const ModelConfig config = small_prefix_decoder();
        Transformer model(config);
        model.parameters().allocate(DType::f64, false);
        model.parameters().initialise(5);
        Context context;
        Pass pass{.context = context, .parameters = model.parameters(), .config = config, .route_rows_alone = true};
        Batch batch = random_decoder_batch(1, 15, 61, 12, true);
        std::fill(batch.decoder_targets.begin(), batch.decoder_targets.end(), 5);
        const auto nll = [&] {
            std::vector<double> values;
            model.evaluate(pass, batch, &values);
            return values;
        };
        const std::vector<double> before = nll();
        const auto end = static_cast<size_t>(batch.prefix_ends[0]);
        REQUIRE(end == 2);
        batch.decoder_ids[end - 1] ^= 1;  // the prefix's last token
        CHECK(nll()[0] != before[0]);
        batch.decoder_ids[end - 1] ^= 1;
        batch.decoder_ids[end] ^= 1;  // the token behind it
        const std::vector<double> after = nll();
        for (size_t i = 0; i < end; ++i) CHECK(after[i] == doctest::Approx(before[i]).epsilon(1e-13));
        CHECK(after[end] != before[end]);
    }

    TEST_CASE("one expert equals the dense model") {
        ModelConfig sparse = small_switch(1), dense = sparse;
        sparse.encoder_routing.jitter = sparse.decoder_routing.jitter = 0;
        sparse.encoder_routing.dropless = sparse.decoder_routing.dropless = true;
        sparse.expert_dropout = -1;
        dense.experts = 0, dense.encoder_sparse = dense.decoder_sparse = {}, dense.d_ff = dense.expert_d_ff;
        sparse.d_ff = sparse.expert_d_ff;
        Transformer a(sparse), b(dense);
        a.parameters().allocate(DType::f64, false), b.parameters().allocate(DType::f64, false);
        a.parameters().initialise(5);
        for (const Parameter& p : b.parameters().records()) {  // every dense tensor has its counterpart: under the same name, "mlp", or as expert 0
            std::string name = p.name;
            if (const size_t at = name.find("DenseReluDense"); at != std::string::npos) name.replace(at, 14, "mlp");
            const Parameter* from = a.parameters().find(name);
            if (!from) from = a.parameters().find(name.replace(name.find("mlp."), 4, "mlp.experts.expert_{e}."));
            REQUIRE(from);
            std::copy_n(a.parameters().master(*from).as<double>(), p.elements(), b.parameters().master(p).as<double>());
        }
        Context context;
        const Batch batch = random_batch(3, 11, 7, 61, 12);
        Pass pa{.context = context, .parameters = a.parameters(), .config = sparse}, pb{.context = context, .parameters = b.parameters(), .config = dense};
        CHECK(a.evaluate(pa, batch).output.nll == doctest::Approx(b.evaluate(pb, batch).output.nll).epsilon(1e-13));
    }

    TEST_CASE("capacity one, and all tokens to one expert, still train") {
        ModelConfig config = small_switch();
        config.encoder_routing.capacity = config.decoder_routing.capacity = 1;
        Transformer model(config);
        model.parameters().allocate(DType::f32, true);
        model.parameters().initialise(5);
        Context context;
        StepGradients step = gradients_of(model, context, {random_batch(4, 11, 7, 61, 3)});
        CHECK(step.finite());
        for (const RoutingReport& r : step.sums.routing)
            for (const double load : r.load) CHECK(load <= 4);
        // Zero router: every probability is equal and the tie goes to expert 0.
        for (const Parameter& p : model.parameters().records())
            if (p.kind == ParameterKind::router) std::fill_n(model.parameters().master(p).as<float>(), p.elements(), 0.0f);
        step = gradients_of(model, context, {random_batch(4, 11, 7, 61, 3)});
        CHECK(step.finite());
        for (const RoutingReport& r : step.sums.routing)
            for (size_t e = 1; e < r.load.size(); ++e) CHECK(r.load[e] == 0);
    }

    TEST_CASE("one batch is overfitted to a loss below 0.01") {
        for (ModelConfig config : {small_t5(), small_switch(), small_decoder()}) {
            config.dropout = 0, config.expert_dropout = 0;
            Transformer model(config);
            model.parameters().allocate(DType::f32, true);
            model.parameters().initialise(5);
            OptimizerConfig settings;
            settings.kind = OptimizerKind::adamw;
            Optimizer optimizer(settings, model.parameters());
            Context context;
            const StepBatch batch{config.encoder_decoder ? random_batch(4, 11, 7, 61, 3) : random_decoder_batch(4, 15, 61, 3, false)};
            StepGradients step;
            for (int64_t t = 0; t < 600; ++t) {
                step = compute_gradients(context, model, batch, {0.01, 0, 0}, 1, t);
                apply_gradients(context, model, optimizer, step, 1.0, t, 3e-3);
            }
            CHECK(step.sums.cross_entropy() < 0.01);
        }
    }

    TEST_CASE("bf16 follows f32: loss within 1 % over 100 steps") {
        for (const ModelConfig& config : {small_t5(), small_switch(), small_decoder()}) {
            std::vector<double> losses[2];
            for (int run = 0; run < 2; ++run) {
                Transformer model(config);
                model.parameters().allocate(run ? DType::bf16 : DType::f32, true);
                model.parameters().initialise(5);
                OptimizerConfig settings;
                Optimizer optimizer(settings, model.parameters());
                Context context;
                for (int64_t t = 0; t < 100; ++t) {
                    const StepGradients step = compute_gradients(
                        context, model,
                        {config.encoder_decoder ? random_batch(8, 16, 8, 61, static_cast<uint64_t>(100 + t % 10)) : random_decoder_batch(8, 24, 61, static_cast<uint64_t>(100 + t % 10), false)},
                        {0.01, 0, 0}, 1, t);
                    apply_gradients(context, model, optimizer, step, 0, t, 1e-2);
                    losses[run].push_back(step.loss);
                }
            }
            for (size_t t = 0; t < losses[0].size(); ++t) CHECK(losses[1][t] == doctest::Approx(losses[0][t]).epsilon(0.01));
        }
    }
}
