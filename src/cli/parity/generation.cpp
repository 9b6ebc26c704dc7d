// Kind generation: greedy and beam search over the key/value cache.
#include "cli/parity/case_model.hpp"
#include "eval/generate.hpp"

namespace flanmoe::cli {

Computed compute_generation(const ParityCase& bare) {
    ParityCase given{bare.folder, bare.json, bare.device, bare.dtype, {}, {}};
    given.inputs.emplace(given.folder / "inputs.safetensors");
    DeviceContext context(given.device);
    const auto model = load_case_model(given, context, false);
    const Batch batch = case_batch(given, model->config());
    GenerationSettings settings;
    settings.max_new_tokens = given.json.at("max_new_tokens").get<int64_t>();

    Computed computed;
    computed.fields["greedy"] = nlohmann::json::array();
    for (const Generated& g : generate(context, *model, batch, settings)) computed.fields["greedy"].push_back(g.ids);
    if (given.json.contains("beam")) {
        const nlohmann::json& beam = given.json["beam"];
        settings.beams = beam.at("beams").get<int64_t>();
        settings.length_penalty = beam.at("length_penalty").get<double>();
        settings.early_stopping = beam.at("early_stopping").get<bool>();
        nlohmann::json result = beam;
        result["sequences"] = nlohmann::json::array(), result["scores"] = nlohmann::json::array();
        for (const Generated& g : generate(context, *model, batch, settings)) {
            result["sequences"].push_back(g.ids);
            result["scores"].push_back(g.score);
        }
        computed.fields["beam"] = result;
    }
    return computed;
}

}  // namespace flanmoe::cli
