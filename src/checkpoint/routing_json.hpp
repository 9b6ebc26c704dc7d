// RoutingConfig <-> JSON, shared by hf_config.cpp and parse_routing. Included by .cpp files only.
#pragma once

#include "checkpoint/json_reader.hpp"
#include "config/model_config.hpp"

namespace flanmoe {

Json routing_json(const RoutingConfig& routing);
/// Keys that are absent change nothing.
void read_routing(const JsonReader& reader, RoutingConfig& routing);

}  // namespace flanmoe
