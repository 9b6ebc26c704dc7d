#include "cli/parity/case_model.hpp"

#include "checkpoint/hf_config.hpp"
#include "checkpoint/model_directory.hpp"
#include "train/step.hpp"

namespace flanmoe::cli {

namespace {

// What the case says replaces the model's routing whole: a key that is absent means its default.
void apply_routing(const ParityCase& given, const nlohmann::json& spec, RoutingConfig& routing) {
    routing = {};
    parse_routing(spec.dump(), routing, (given.folder / "case.json").string());
    if (!routing.dropless && routing.capacity < 1) given.malformed("routing has no capacity");
    if (routing.second_eval == SecondPolicy::random) given.malformed("the second policy \"random\" cannot be judged for a whole model");
}

std::vector<int64_t> integers(const ParityCase& given, const std::string& name, int64_t& rows, int64_t& length) {
    const HostTensor t = given.input(name, DType::i64);
    if (t.shape.rank != 2) fail(Exit::bad_data, "{}: {} has shape {}, two dimensions are expected", given.inputs->path().string(), name, t.shape.text());
    rows = t.shape[0], length = t.shape[1];
    return {t.as<int64_t>(), t.as<int64_t>() + t.shape.elements()};
}

constexpr int64_t not_counted = -100;

}  // namespace

std::unique_ptr<Transformer> load_case_model(const ParityCase& given, const Context& context, bool gradients, const Mesh& mesh) {
    ModelConfig config = read_model_config(given.folder);
    if (given.json.contains("routing") && given.json["routing"].is_object()) {
        for (const auto& [stack, spec] : given.json["routing"].items()) apply_routing(given, spec, stack == "encoder" ? config.encoder_routing : config.decoder_routing);
    }
    auto model = std::make_unique<Transformer>(config, mesh);
    // What training does by default in this precision; generation has no use for more than the compute copy.
    const bool wide = gradients && given.dtype == DType::bf16;
    model->parameters().allocate(given.dtype, gradients, wide ? training_types({.dtype = Precision::bf16}).forward : given.dtype, context);
    load_model(given.folder, model->parameters());
    return model;
}

HfLayout case_layout(const ParityCase& given) { return layout_of(read_model_config(given.folder)); }

LossCoefficients loss_of(const ParityCase& given) {
    const nlohmann::json loss = given.json.value("loss", nlohmann::json::object());
    return {loss.value("balance", 0.0), loss.value("z", 0.0), loss.value("output_z", 0.0)};
}

Batch case_batch(const ParityCase& given, const ModelConfig& config, const std::string& suffix) {
    Batch b;
    int64_t rows = 0, length = 0;
    const std::vector<int64_t> ids = integers(given, "input_ids" + suffix, b.rows, length), mask = integers(given, "attention_mask" + suffix, rows, length);
    const std::vector<int32_t> narrow(ids.begin(), ids.end()), segments(mask.begin(), mask.end());
    std::vector<int64_t> labels;
    if (given.has_input("labels" + suffix)) labels = integers(given, "labels" + suffix, rows, b.decoder_length);
    if (rows != b.rows) fail(Exit::bad_data, "{}: inputs have different numbers of rows", given.inputs->path().string());
    if (config.encoder_decoder) {
        b.encoder_length = length, b.encoder_ids = narrow, b.encoder_segments = segments;
        // The decoder's own mask is causal only: every position is visible, but only counted ones are routed.
        b.decoder_segments.assign(labels.size(), 1);
        for (size_t i = 0; i < labels.size(); ++i) {
            const bool start = i % static_cast<size_t>(b.decoder_length) == 0;
            b.decoder_ids.push_back(static_cast<int32_t>(start ? config.decoder_start_id : labels[i - 1] == not_counted ? config.pad_id : labels[i - 1]));
            b.decoder_targets.push_back(labels[i] == not_counted ? ignored : static_cast<int32_t>(labels[i]));
            b.decoder_routed.push_back(labels[i] != not_counted);
        }
        return b;
    }
    b.decoder_length = length, b.decoder_ids = narrow, b.decoder_segments = segments;
    for (size_t i = 0; i < labels.size(); ++i) {
        const bool last = (i + 1) % static_cast<size_t>(length) == 0;
        b.decoder_targets.push_back(last || labels[i + 1] == not_counted ? ignored : static_cast<int32_t>(labels[i + 1]));
    }
    if (given.has_input("prefix_length" + suffix)) {
        const HostTensor prefix = given.input("prefix_length" + suffix, DType::i64);
        if (prefix.shape.elements() != b.rows) fail(Exit::bad_data, "{}: prefix_length{} does not have one number a row", given.inputs->path().string(), suffix);
        for (int64_t r = 0; r < b.rows; ++r)
            for (int64_t t = 0; t < length; ++t) b.prefix_ends.push_back(t < prefix.as<int64_t>()[r] ? static_cast<int32_t>(prefix.as<int64_t>()[r]) : 0);
    }
    return b;
}

Batch rows_of(const Batch& batch, int64_t first, int64_t count) {
    Batch b = batch;
    b.rows = count, b.first_row = batch.first_row + first;
    const auto cut = [&](auto& values, int64_t length) {
        if (!values.empty()) values = {values.begin() + first * length, values.begin() + (first + count) * length};
    };
    cut(b.encoder_ids, batch.encoder_length), cut(b.encoder_segments, batch.encoder_length), cut(b.encoder_routed, batch.encoder_length);
    cut(b.decoder_ids, batch.decoder_length), cut(b.decoder_segments, batch.decoder_length), cut(b.decoder_routed, batch.decoder_length);
    cut(b.decoder_targets, batch.decoder_length), cut(b.prefix_ends, batch.decoder_length);
    return b;
}

}  // namespace flanmoe::cli
