#include "ops/milestone.hpp"

#include "ops/run.hpp"

namespace flanmoe::cuda {
std::unique_ptr<Milestone> make_milestone(Context& context);
}  // namespace flanmoe::cuda

namespace flanmoe {

std::unique_ptr<Milestone> make_milestone(Context& context) {
    if (context.device == Device::cpu) return std::make_unique<Milestone>();
    if constexpr (ops::with_cuda) return cuda::make_milestone(context);
    else ops::refuse_cuda();
}

}  // namespace flanmoe
