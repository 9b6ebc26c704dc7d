// A point in the order of work: an event without a time.
#include "ops/milestone.hpp"

#include "engine.hpp"

namespace flanmoe::cuda {

namespace {

class EventMilestone : public Milestone {
public:
    explicit EventMilestone(Engine& engine) : engine_(engine) { engine_.check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event"); }
    ~EventMilestone() override { cudaEventDestroy(event_); }
    void set() override { engine_.check(cudaEventRecord(event_, engine_.stream()), "marking a place in the work"); }
    void wait() override { engine_.check(cudaEventSynchronize(event_), "waiting for a place in the work"); }

private:
    Engine& engine_;
    cudaEvent_t event_ = nullptr;
};

}  // namespace

std::unique_ptr<Milestone> make_milestone(Context& context) { return std::make_unique<EventMilestone>(engine_of(context)); }

}  // namespace flanmoe::cuda
