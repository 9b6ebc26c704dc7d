// The counted work of a training step against the model's own count of operations and against figures by hand.
#include "train/step_work.hpp"

#include "config/dense_twin.hpp"

#include <doctest/doctest.h>

#include <map>

using namespace flanmoe;

namespace {

Config load(const std::string& model, std::vector<std::string> settings = {}) {
    const std::string source = model.starts_with("glam") ? "data.encoder_length=0" : "data.encoder_length=512";
    for (const std::string& setting : {std::string("train.dtype=bf16"), std::string("train.forward=bf16"), std::string("data.batch_rows=8"), std::string("data.decoder_length=128"), source})
        settings.push_back(setting);
    return load_config({"configs/model/" + model + ".toml"}, settings);
}

std::map<std::string, double> flops_by_part(const std::vector<KernelWork>& work) {
    std::map<std::string, double> flops;
    for (const KernelWork& w : work) flops[w.part] += w.flops;
    return flops;
}

}  // namespace

TEST_SUITE("train/step_work") {
    TEST_CASE("forward products are the model's, backward ones twice as many, those of attention 3.5 times") {
        for (const char* name : {"t5-base", "t5-xl", "switch-base", "gshard-base", "experts-choose-base", "st-moe-base", "glam-xl"}) {
            CAPTURE(name);
            Config config = load(name);
            const SequenceShape shape{8, config.model.encoder_decoder ? 512 : 0, 128};
            const std::vector<KernelWork> work = work_of_step(config, Transformer(config.model), shape);
            std::map<std::string, double> flops = flops_by_part(work);
            double attention = 0;
            for (const KernelWork& w : work) attention += w.kernel == "attention" ? w.flops : 0;
            const double output = flops["output and loss"] / 3;
            const double forward = flops["attention forward"] + flops["feed-forward forward"] + flops["experts forward"] + output;
            CHECK(forward == doctest::Approx(forward_flops(config.model, shape)).epsilon(1e-9));
            const double backward = flops["attention backward"] + flops["feed-forward backward"] + flops["experts backward"] + 2 * output;
            CHECK(backward == doctest::Approx(2 * forward + 1.5 * attention).epsilon(1e-9));
        }
    }

    TEST_CASE("bytes by hand: T5-base's optimizer, a gated activation") {
        const Config config = load("t5-base");
        const Transformer model(config.model);
        double update = 0, activation = 0;
        for (const KernelWork& w : work_of_step(config, model, {8, 512, 128})) {
            if (w.part == "optimizer") update += w.bytes;
            if (w.kernel == "activation" && w.part == "feed-forward forward") activation += w.bytes;
        }
        CHECK(update == doctest::Approx(24.0 * static_cast<double>(model.parameters().parameter_count())).epsilon(0.001));
        CHECK(activation == 8 * (512 + 128) * 12 * 2048 * 3 * 2.0);
    }

    TEST_CASE("micro-batches repeat the passes and not the optimizer; an f32 forward uses float products and copies") {
        const Config config = load("switch-base");
        const Transformer model(config.model);
        const auto once = flops_by_part(work_of_step(config, model, {8, 512, 128})), thrice = flops_by_part(work_of_step(config, model, {8, 512, 128}, 3));
        for (const auto& [part, flops] : once) CHECK(thrice.at(part) == doctest::Approx(3 * flops));
        const auto seconds = [&](const std::string& part, int64_t passes, const Config& c) {
            double sum = 0;
            for (const KernelWork& w : work_of_step(c, model, {8, 512, 128}, passes)) sum += w.part == part ? predicted_seconds(w, rates_of("h100")) : 0;
            return sum;
        };
        CHECK(seconds("optimizer", 3, config) == seconds("optimizer", 1, config));
        CHECK(seconds("norm forward", 3, config) == doctest::Approx(3 * seconds("norm forward", 1, config)));
        Config wide = config;
        wide.train.forward = Precision::f32;
        CHECK(seconds("attention forward", 1, wide) > 5 * seconds("attention forward", 1, config));
        CHECK(seconds("experts backward", 1, wide) > 1.01 * seconds("experts backward", 1, config));
    }

    TEST_CASE("predictions: parts add up, a device with more bandwidth is not slower, refusals") {
        const Config config = load("switch-base", {"moe.experts=16"});
        const StepPrediction h100 = predict_step(config, rates_of("h100")), h200 = predict_step(config, rates_of("h200"));
        double sum = 0;
        for (const PartPrediction& part : h100.parts) sum += part.milliseconds;
        CHECK(sum == doctest::Approx(h100.milliseconds));
        CHECK(h100.source == 512);
        CHECK(h200.milliseconds < h100.milliseconds);
        CHECK((h100.share_of_products() > 0.1 && h100.share_of_products() < 1));
        Config dense = config;
        dense.model = dense_twin(config.model).model;
        CHECK(predict_step(dense, rates_of("h100")).milliseconds < h100.milliseconds);
        CHECK_THROWS_WITH_AS(rates_of("v100"), doctest::Contains("a100, h100 and h200"), Error);
        Config f32 = config;
        f32.train.dtype = Precision::f32;
        CHECK(predict_step(f32, rates_of("h100")).milliseconds > 3 * h100.milliseconds);  // its products run at a fourteenth of the rate
    }
}
