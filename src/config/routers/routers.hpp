// The named routers: what `moe.router` may say. Each is one file of this folder, a function that fills a RoutingConfig, with its sources and traps on top.
//
// To add one: copy the file that comes nearest, declare its function below and give it a row in routers.cpp and in the table of
// test/config/routers_test.cpp. A router that needs a new way to decide, not only new settings, also gets a file in cpu/route/.
//
// What a function sets is what its paper says: who chooses, how many, gates, balance statistic, second policies, capacity. The coefficients of the losses
// (train.balance_loss, train.router_z_loss) and the layers that are sparse (moe.every) are options of their own.
#pragma once

#include "config/model_config.hpp"

#include <string>
#include <vector>

namespace flanmoe {

struct NamedRouter {
    const char* name;     ///< in config files
    const char* summary;  ///< for the option's help
    /// `decoder`: for the decoder of a model whose encoder has this router.
    RoutingConfig (*settings)(bool decoder);
};
/// All of them, in the order of the option's names.
const std::vector<NamedRouter>& named_routers();
std::vector<std::string> router_names();
std::string router_summaries();  ///< "switch (top-1, jitter 0.01), ..."

namespace routers {
RoutingConfig switch_top1(bool decoder);
RoutingConfig gshard(bool decoder);
RoutingConfig top_k(bool decoder);
RoutingConfig expert_choice(bool decoder);
RoutingConfig st_moe(bool decoder);
RoutingConfig dropless(bool decoder);
RoutingConfig loss_free(bool decoder);
RoutingConfig balanced(bool decoder);
}  // namespace routers

}  // namespace flanmoe
