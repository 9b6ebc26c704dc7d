// Kind buckets: the relative position bucket of every distance from -reach to reach.
#include "cli/parity/parity.hpp"
#include "ops/attention.hpp"

namespace flanmoe::cli {

Computed compute_buckets(const ParityCase& given) {
    const int64_t reach = given.json.at("reach").get<int64_t>();
    Computed computed;
    computed.fields["tables"] = nlohmann::json::array();
    for (const nlohmann::json& table : given.json.at("tables")) {
        const ops::BucketRule rule{table.at("buckets").get<int64_t>(), table.at("max_distance").get<int64_t>(), table.at("bidirectional").get<bool>()};
        std::vector<int64_t> buckets;
        for (int64_t relative = -reach; relative <= reach; ++relative) buckets.push_back(ops::bucket_of(rule, relative));
        nlohmann::json mine = table;
        mine["bucket"] = buckets;
        computed.fields["tables"].push_back(mine);
    }
    return computed;
}

}  // namespace flanmoe::cli
