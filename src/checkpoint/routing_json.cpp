#include "checkpoint/routing_json.hpp"

#include "checkpoint/hf_config.hpp"

namespace flanmoe {

namespace {

constexpr const char* policies[] = {"all", "none", "threshold", "random"};

SecondPolicy policy_of(const JsonReader& reader, const char* key, SecondPolicy otherwise) {
    const std::string text = reader.text(key, policies[static_cast<int>(otherwise)]);
    for (int i = 0; i < 4; ++i)
        if (text == policies[i]) return static_cast<SecondPolicy>(i);
    reader.refuse(key, fmt::format("is {:?}", text), "use all, none, threshold or random");
}

// The names say which paper's rule the settings amount to; reading goes by the settings.
const char* router_name(const RoutingConfig& routing) {
    if (routing.kind == RouterKind::expert_choice) return "expert_choice";
    if (routing.kind == RouterKind::balanced) return "balanced";
    return routing.k == 1 && !routing.normalize ? "switch" : routing.normalize ? "gshard" : "top_k";
}

}  // namespace

Json routing_json(const RoutingConfig& routing) {
    Json json;
    json["router"] = router_name(routing);
    json["k"] = routing.k;
    json["normalize"] = routing.normalize;
    json["prioritized"] = routing.prioritized;
    json["density"] = routing.density == Density::first ? "first" : "any";
    json["second"] = {{"policy", policies[static_cast<int>(routing.second_train)]},
                      {"eval_policy", policies[static_cast<int>(routing.second_eval)]},
                      {"threshold", routing.second_threshold}};
    if (routing.dropless)
        json["capacity"] = nullptr;
    else if (routing.capacity > 0)
        json["capacity"] = routing.capacity;
    json["eval_dropless"] = routing.eval_dropless;
    json["capacity_factor"] = routing.capacity_factor;
    json["eval_capacity_factor"] = routing.eval_capacity_factor;
    json["min_capacity"] = routing.min_capacity;
    if (routing.group_rows <= 1)
        json["group"] = routing.group_rows == 1 ? "row" : "batch";
    else
        json["group"] = routing.group_rows;
    json["route_padding"] = routing.route_padding;
    json["jitter"] = routing.jitter;
    json["input_dropout"] = routing.input_dropout;
    json["sample_temperature"] = routing.sample_temperature;
    json["balance_bias"] = routing.balance_bias;
    json["balance_bias_rate"] = routing.balance_bias_rate;
    json["force_causal"] = routing.force_causal;
    return json;
}

void read_routing(const JsonReader& reader, RoutingConfig& routing) {
    reader.only({"layers", "router", "k", "normalize", "prioritized", "density", "second", "capacity", "capacity_factor", "eval_capacity_factor",
                 "min_capacity", "group", "route_padding", "jitter", "input_dropout", "sample_temperature", "eval_dropless", "balance_bias", "balance_bias_rate", "force_causal"});
    const std::string router = reader.text("router", router_name(routing));
    if (router != "switch" && router != "gshard" && router != "top_k" && router != "expert_choice" && router != "balanced")
        reader.refuse("router", fmt::format("is {:?}", router), "use switch, gshard, top_k, expert_choice or balanced");
    routing.kind = router == "expert_choice" ? RouterKind::expert_choice : router == "balanced" ? RouterKind::balanced : RouterKind::token_choice;
    routing.k = reader.integer("k", 1, 64, routing.k);
    routing.normalize = reader.boolean("normalize", routing.normalize);
    routing.prioritized = reader.boolean("prioritized", routing.prioritized);
    const std::string density = reader.text("density", routing.density == Density::first ? "first" : "any");
    if (density != "first" && density != "any") reader.refuse("density", fmt::format("is {:?}", density), "use first or any");
    routing.density = density == "first" ? Density::first : Density::any;
    if (reader.has("second")) {
        const JsonReader second = reader.object("second");
        second.only({"policy", "eval_policy", "threshold"});
        routing.second_train = policy_of(second, "policy", routing.second_train);
        routing.second_eval = policy_of(second, "eval_policy", second.has("policy") ? routing.second_train : routing.second_eval);
        routing.second_threshold = second.number("threshold", 0, 1, routing.second_threshold);
    }
    const bool named = reader.contains("capacity");
    if (named) routing.dropless = !reader.has("capacity"), routing.capacity = reader.integer("capacity", 1, int64_t{1} << 40, 0);
    routing.eval_dropless = reader.boolean("eval_dropless", routing.eval_dropless);
    routing.capacity_factor = reader.number("capacity_factor", 0, 1e6, routing.capacity_factor);
    routing.eval_capacity_factor = reader.number("eval_capacity_factor", 0, 1e6, routing.eval_capacity_factor);
    routing.min_capacity = reader.integer("min_capacity", 0, int64_t{1} << 40, routing.min_capacity);
    if (reader.has("group") && reader.raw("group").is_string()) {
        const std::string group = reader.text("group", "");
        if (group != "row" && group != "batch") reader.refuse("group", fmt::format("is {:?}", group), "use row, batch or a number of rows");
        routing.group_rows = group == "row" ? 1 : 0;
    } else {
        routing.group_rows = reader.integer("group", 1, int64_t{1} << 30, routing.group_rows);
    }
    routing.route_padding = reader.boolean("route_padding", routing.route_padding);
    routing.jitter = reader.number("jitter", 0, 1, routing.jitter);
    routing.input_dropout = reader.number("input_dropout", 0, 1, routing.input_dropout);
    routing.sample_temperature = reader.number("sample_temperature", 0, 1e6, routing.sample_temperature);
    routing.balance_bias = reader.boolean("balance_bias", routing.balance_bias);
    routing.balance_bias_rate = reader.number("balance_bias_rate", 0, 1e6, routing.balance_bias_rate);
    routing.force_causal = reader.boolean("force_causal", routing.force_causal);
}

void parse_routing(std::string_view json, RoutingConfig& routing, const std::string& where) {
    const ParsedJson object = parse_json_object(json, where);
    read_routing(JsonReader(object, where), routing);
}

}  // namespace flanmoe
