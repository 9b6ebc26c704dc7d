// The table of named routers.
#include "config/routers/routers.hpp"

namespace flanmoe {

const std::vector<NamedRouter>& named_routers() {
    static const std::vector<NamedRouter> rows = {
        {"switch", "top-1, jitter 0.01", routers::switch_top1},
        {"gshard", "top-2, random second", routers::gshard},
        {"top_k", "top-2 as T5X", routers::top_k},
        {"expert_choice", "encoder; top_k in the decoder", routers::expert_choice},
        {"st_moe", "top-2, random second, capacity 1.25 and 2.0", routers::st_moe},
        {"dropless", "top-2 without capacity", routers::dropless},
        {"loss_free", "dropless, balanced by a bias of each expert", routers::loss_free},
        {"balanced", "experts in turn, for measurements only", routers::balanced},
    };
    return rows;
}

std::vector<std::string> router_names() {
    std::vector<std::string> names;
    for (const NamedRouter& router : named_routers()) names.emplace_back(router.name);
    return names;
}

std::string router_summaries() {
    std::string text;
    for (const NamedRouter& router : named_routers()) text += std::string(text.empty() ? "" : ", ") + router.name + " (" + router.summary + ")";
    return text;
}

}  // namespace flanmoe
