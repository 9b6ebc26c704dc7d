// Operations of a forward pass against counts by hand.
#include "model/flops.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;

namespace {

/// T5 v1.0 small: 8 heads x 64, plain feed-forward of 2048.
ModelConfig t5_small() {
    ModelConfig c;
    c.vocab_size = 32128, c.d_model = 512, c.d_kv = 64, c.heads = 8, c.d_ff = 2048;
    c.encoder_layers = c.decoder_layers = 6;
    c.activation = Activation::relu, c.gated = false, c.tied = c.scale_outputs = true;
    return c;
}

constexpr SequenceShape shape{3, 10, 4};
constexpr double dense_layer = 2.0 * 512 * 2048 * 2;  // wi and wo, one token

}  // namespace

TEST_SUITE("model/flops") {
    TEST_CASE("T5-small, one row of 10 + 4 tokens") {
        // A token of the encoder, a layer: q, k, v, o 8 x 512 x 512; scores and weighted sum over 10 keys 4 x 10 x 512; wi, wo 4 x 512 x 2048.
        const double encoder = 10 * 6 * (2097152.0 + 20480 + 4194304);
        // A token of the decoder: half of the square of 4 x 4 scores, twice.
        const double decoder = 4 * 6 * (2097152.0 + 4096 + 4194304);
        // Cross-attention: q, o and 10 keys for a token of the target, k and v for a token of the source.
        const double cross = 6 * (4 * (1048576.0 + 20480) + 10 * 1048576.0);
        const double output = 4 * 2.0 * 512 * 32128;
        CHECK(encoder + decoder + cross + output == 749977600.0);
        CHECK(forward_flops(t5_small(), {1, 10, 4}) == 749977600.0);
        CHECK(forward_flops(t5_small(), shape) == 3 * 749977600.0);
    }

    TEST_CASE("a gated feed-forward has three products") {
        ModelConfig gated = t5_small();
        gated.gated = true;
        const double tokens = 3 * (10 + 4) * 6;
        CHECK(forward_flops(gated, shape) - forward_flops(t5_small(), shape) == tokens * dense_layer / 2);
    }

    TEST_CASE("top-1 experts cost the router alone, every further choice a feed-forward") {
        ModelConfig sparse = t5_small();
        sparse.experts = 8, sparse.encoder_sparse = {1, 3, 5}, sparse.decoder_sparse = {1};
        const double dense = forward_flops(t5_small(), shape), tokens = 3 * (10 * 3 + 4 * 1), router = 2.0 * 512 * 8;
        CHECK(forward_flops(sparse, shape) - dense == tokens * router);

        ModelConfig top_2 = sparse;
        top_2.encoder_routing.k = top_2.decoder_routing.k = 2;
        CHECK(forward_flops(top_2, shape) - dense == tokens * (router + dense_layer));

        ModelConfig extra = sparse;
        extra.extra_ffn = true;
        CHECK(forward_flops(extra, shape) - dense == tokens * (router + dense_layer));

        ModelConfig narrow = sparse;
        narrow.expert_d_ff = 1024;
        CHECK(forward_flops(narrow, shape) - dense == tokens * (router - dense_layer / 2));

        ModelConfig choice = sparse;  // experts choose: as many rows as the capacity factor says
        choice.encoder_routing.kind = RouterKind::expert_choice, choice.encoder_routing.capacity_factor = 2.0;
        CHECK(forward_flops(choice, shape) - dense == tokens * router + 3 * 10 * 3 * dense_layer);
    }

    TEST_CASE("a decoder alone has no source and no cross-attention") {
        ModelConfig c = t5_small();
        c.encoder_decoder = false, c.encoder_layers = 0;
        CHECK(forward_flops(c, {1, 0, 4}) == 4 * 6 * (2097152.0 + 4096 + 4194304) + 4 * 2.0 * 512 * 32128);
        ModelConfig grouped = c;  // a quarter of the key heads: k and v cost 2 x 2 x 512 x 512 less three quarters
        grouped.kv_heads = 2;
        CHECK(forward_flops(c, {1, 0, 4}) - forward_flops(grouped, {1, 0, 4}) == 4 * 6 * 0.75 * 4 * 512 * 512);
        ModelConfig shared = c;
        shared.experts = 4, shared.decoder_sparse = {1, 3};
        const double routed = forward_flops(shared, {1, 0, 4});
        shared.shared_d_ff = 100, shared.shared_gate = true;
        CHECK(forward_flops(shared, {1, 0, 4}) - routed == 4 * 2 * (2.0 * 2 * 512 * 100 + 2 * 512));
    }
}
