// Conversions: what goes through a file comes out with the same bits, upcycled models are their parents where the router lets them, half a directory never stays.
#include "checkpoint/conversion.hpp"

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/hf_config.hpp"
#include "checkpoint/temporary_folder.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "model/small_models.hpp"
#include "optim/optimizer.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::test;
namespace fs = std::filesystem;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A model directory with weights drawn from a seed.
fs::path make_model(const fs::path& folder, const ModelConfig& config, DType weights = DType::f32) {
    Transformer model(config);
    model.parameters().allocate(DType::f32, false);
    model.parameters().initialise(4);
    SaveModelOptions options;
    options.weights = weights;
    save_model(folder, config, model.parameters(), {{"spiece.model", "vocabulary"}}, options);
    return folder;
}

ModelConfig experts_over(const ModelConfig& dense, int64_t experts, bool normalize, int64_t k = 1) {
    ModelConfig c = dense;
    c.experts = experts, c.expert_d_ff = 0, c.expert_activation = c.activation, c.expert_gated = c.gated;
    c.encoder_sparse = {1}, c.decoder_sparse = {0, 1};
    for (RoutingConfig* r : {&c.encoder_routing, &c.decoder_routing}) r->k = k, r->normalize = normalize;
    return c;
}

ConversionSettings to(const ModelConfig& model) {
    ConversionSettings settings;
    settings.model = model;
    return settings;
}

template <class Action>
std::string refusal(Exit code, Action action) {
    try {
        action();
    } catch (const Error& error) {
        CHECK(error.code == code);
        return error.what();
    }
    return "";
}

std::string bytes_of(const fs::path& directory, const std::string& tensor) {
    const WeightFiles weights(directory);
    const WeightFiles::Found found = weights.find(tensor);
    CAPTURE(tensor);
    REQUIRE(found);
    return found.file->bytes(*found.entry);
}

}  // namespace

TEST_SUITE("checkpoint/conversion") {
    TEST_CASE("f32 to f32 copies every bit, in shards too; bf16 rounds and reads back") {
        const TemporaryFolder folder;
        const fs::path source = make_model(folder / "source", small_switch());
        const ConversionResult whole = convert_model(source, folder / "whole", to(small_switch()));
        CHECK(whole.files == 1);
        CHECK(whole.drawn == 0);
        CHECK(read_file(folder / "whole/model.safetensors") == read_file(source / "model.safetensors"));
        CHECK(read_file(folder / "whole/config.json") == read_file(source / "config.json"));
        CHECK(read_file(folder / "whole/spiece.model") == "vocabulary");
        CHECK(verify_checkpoint(folder / "whole").empty());

        ConversionSettings pieces = to(small_switch());
        pieces.shard_bytes = 20'000;
        CHECK(convert_model(folder / "whole", folder / "pieces", pieces).files > 2);
        convert_model(folder / "pieces", folder / "again/", to(small_switch()));
        CHECK(read_file(folder / "again/model.safetensors") == read_file(source / "model.safetensors"));

        ConversionSettings rounded = to(small_switch());
        rounded.weights = DType::bf16;
        convert_model(source, folder / "bf16", rounded);
        const WeightFiles weights(folder / "bf16");
        CHECK(weights.find("shared.weight").entry->type == StoredType::bf16);
        CHECK(weights.find("encoder.block.1.layer.1.mlp.router.classifier.weight").entry->type == StoredType::f32);
        CHECK(compare_functions(source, folder / "bf16").relative() < 0.1);
        CHECK(compare_functions(source, folder / "whole").largest == 0);
    }

    TEST_CASE("an upcycled model has the parent's weights in every expert and a router from the seed") {
        const TemporaryFolder folder;
        const ModelConfig dense = small_t5(false), sparse = upcycled_model(dense, experts_over(dense, 4, false));
        const fs::path source = make_model(folder / "dense", dense);
        const ConversionResult result = convert_model(source, folder / "sparse", to(sparse));
        CHECK(result.drawn == 3);  // routers
        const auto at = [&](const std::string& tensor) { return bytes_of(folder / "sparse", tensor); };
        for (const std::string weight : {"wi", "wo"}) {
            for (int expert = 0; expert < 4; ++expert) {
                CHECK(at(fmt::format("encoder.block.1.layer.1.mlp.experts.expert_{}.{}.weight", expert, weight)) == bytes_of(source, fmt::format("encoder.block.1.layer.1.DenseReluDense.{}.weight", weight)));
                CHECK(at(fmt::format("decoder.block.0.layer.2.mlp.experts.expert_{}.{}.weight", expert, weight)) == bytes_of(source, fmt::format("decoder.block.0.layer.2.DenseReluDense.{}.weight", weight)));
            }
        }
        CHECK(at("encoder.block.0.layer.1.mlp.wi.weight") == bytes_of(source, "encoder.block.0.layer.1.DenseReluDense.wi.weight"));
        CHECK(at("encoder.block.1.layer.1.layer_norm.weight") == bytes_of(source, "encoder.block.1.layer.1.layer_norm.weight"));
        const std::string router = "encoder.block.1.layer.1.mlp.router.classifier.weight";
        ConversionSettings other = to(sparse);
        convert_model(source, folder / "same", other);
        other.seed = 1;
        convert_model(source, folder / "other", other);
        CHECK(at(router) == bytes_of(folder / "same", router));
        CHECK(at(router) != bytes_of(folder / "other", router));
    }

    TEST_CASE("the function is kept where gates sum to one, and only there") {
        const TemporaryFolder folder;
        int number = 0;
        const auto difference = [&](const ModelConfig& dense, const ModelConfig& sparse) {
            const fs::path source = make_model(folder / fmt::format("dense{}", number), dense), target = folder / fmt::format("sparse{}", number);
            ++number;
            convert_model(source, target, to(upcycled_model(dense, sparse)));
            return compare_functions(source, target).relative();
        };
        for (const bool v11 : {false, true}) {
            const ModelConfig dense = small_t5(v11);
            CHECK(difference(dense, experts_over(dense, 4, true, 2)) < 1e-5);
            CHECK(difference(dense, experts_over(dense, 1, false)) < 1e-5);
            CHECK(difference(dense, experts_over(dense, 4, false)) > 1e-2);
        }
        ModelConfig st = experts_over(small_t5(), 4, true, 2);
        st.extra_ffn = true;  // begins as nothing
        CHECK(difference(small_t5(), st) < 1e-5);
        ModelConfig alone = small_t5();
        alone.encoder_decoder = false, alone.encoder_layers = 0;
        ModelConfig sparse_alone = experts_over(alone, 4, true, 2);
        sparse_alone.encoder_sparse.clear();
        CHECK(difference(alone, sparse_alone) < 1e-5);

        CHECK(changed_function(experts_over(small_t5(), 4, true, 2)).empty());
        CHECK(changed_function(experts_over(small_t5(), 1, false)).empty());
        CHECK(contains(changed_function(experts_over(small_t5(), 4, false)), "raw probabilities"));
        ModelConfig choice = experts_over(small_t5(), 4, true, 2);
        choice.encoder_routing.kind = RouterKind::expert_choice;
        CHECK(contains(changed_function(choice), "expert choice"));
        ModelConfig random = experts_over(small_t5(), 4, true, 2);
        random.decoder_routing.second_eval = SecondPolicy::random;
        CHECK(contains(changed_function(random), "decoder leaves out"));
    }

    TEST_CASE("optimizer state goes along if it is asked for: the parent's slots for every expert") {
        const TemporaryFolder folder;
        const ModelConfig dense = small_t5(), sparse = upcycled_model(dense, experts_over(dense, 3, false));
        Transformer model(dense);
        model.parameters().allocate(DType::f32, true);
        model.parameters().initialise(4);
        Optimizer optimizer({}, model.parameters());
        float value = 0;
        for (const auto& [name, tensor, slice] : optimizer.state())
            for (int64_t i = 0; i < tensor.elements(); ++i) tensor.as<float>()[i] = value += 0.5f;
        const SaveResult saved = save_checkpoint(folder.path(), 7, dense, model.parameters(), {R"({"step":7})", "", optimizer.state()});
        REQUIRE(saved);

        ConversionSettings settings = to(sparse);
        settings.keep_optimizer = true;
        const fs::path target = folder / "sparse";
        convert_model(saved.path, target, settings);
        CHECK(verify_checkpoint(target).empty());
        CHECK(read_training_state(target).state_json == R"({"step":7})");
        const SafetensorsFile before(saved.path / "training/optimizer.safetensors"), after(target / "training/optimizer.safetensors");
        CHECK(after.bytes(after.at("encoder.block.1.layer.1.mlp.experts.expert_2.wi_1.weight.v")) == before.bytes(before.at("encoder.block.1.layer.1.DenseReluDense.wi_1.weight.v")));
        CHECK(after.bytes(after.at("encoder.block.0.layer.1.mlp.wo.weight.v")) == before.bytes(before.at("encoder.block.0.layer.1.DenseReluDense.wo.weight.v")));
        CHECK(after.bytes(after.at("shared.weight.v")) == before.bytes(before.at("shared.weight.v")));
        CHECK_FALSE(after.find("encoder.block.1.layer.1.mlp.router.classifier.weight.v"));

        Transformer upcycled(sparse);
        upcycled.parameters().allocate(DType::f32, true);
        Optimizer next({}, upcycled.parameters());
        const TakenSlots slots = take_over_optimizer(target, next.state());
        CHECK((slots.fresh == 3 && slots.unused == 0 && slots.taken == static_cast<int64_t>(next.state().size()) - 3));
        OptimizerConfig adamw;
        adamw.kind = OptimizerKind::adamw;
        CHECK(contains(refusal(Exit::bad_checkpoint, [&] { take_over_optimizer(target, Optimizer(adamw, upcycled.parameters()).state()); }), "another kind of optimizer"));
        CHECK(contains(refusal(Exit::bad_checkpoint, [&] { take_over_optimizer(make_model(folder / "plain", dense), next.state()); }), "no optimizer state to go on with"));
        settings.model = dense;
        CHECK(contains(refusal(Exit::bad_checkpoint, [&] { convert_model(folder / "plain", folder / "x", settings); }), "has no training state"));
        CHECK_FALSE(fs::exists(folder / "x"));
    }

    TEST_CASE("what cannot be is refused, and nothing is left") {
        const TemporaryFolder folder;
        const ModelConfig dense = small_t5(false);
        const fs::path source = make_model(folder / "dense", dense);
        CHECK(contains(refusal(Exit::usage, [&] { upcycled_model(small_switch(), small_switch()); }), "4 experts already"));
        ModelConfig wide = experts_over(dense, 4, false), gated = wide, narrow_layer = wide;
        wide.expert_d_ff = 40, gated.expert_gated = true;
        CHECK(contains(refusal(Exit::usage, [&] { upcycled_model(dense, wide); }), "experts of width 40 cannot be copies of the feed-forward of encoder layer 1, whose width is 36"));
        CHECK(contains(refusal(Exit::usage, [&] { upcycled_model(dense, gated); }), "another activation"));
        CHECK(contains(refusal(Exit::usage, [&] { upcycled_model(dense, dense); }), "--experts"));
        ModelConfig twin = dense;
        twin.decoder_d_ff = {36, 72};
        CHECK(contains(refusal(Exit::usage, [&] { upcycled_model(twin, experts_over(twin, 4, false)); }), "decoder layer 1, whose width is 72"));

        fs::create_directory(folder / "taken");
        CHECK(contains(refusal(Exit::cannot_create, [&] { convert_model(source, folder / "taken", to(dense)); }), "exists already"));
        CHECK(contains(refusal(Exit::cannot_create, [&] { convert_model(source, source, to(dense)); }), "exists already"));
        CHECK(contains(refusal(Exit::internal, [&] { convert_model(source, folder / "refused", to(dense), [](const fs::path& path) {
                           CHECK(fs::exists(path / "manifest.json"));
                           fail(Exit::internal, "no");
                       }); }), "no"));
        int entries = 0;
        for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder.path())) ++entries;
        CHECK(entries == 2);  // dense, taken
    }
}
