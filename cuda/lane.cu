// A lane on the GPU: an engine with a stream of its own. Two events order it with the first engine's: one before every piece, one after. Inside a recorded graph
// they become the graph's dependencies, and the lane's stream is part of the recording until wait() joins it.
#include "engine.hpp"

#include "core/lane.hpp"

#include <array>

namespace flanmoe::cuda {

namespace {

constexpr size_t events_kept = 64;  ///< a piece that is waited for after so many others waits for a later one

class StreamLane : public Lane {
public:
    explicit StreamLane(Engine& engine) : engine_(engine), own_(engine.device()), context_(Device::cuda, own_) {
        make(before_);
        for (cudaEvent_t& event : after_) make(event);
    }
    ~StreamLane() override {
        cudaEventDestroy(before_);
        for (cudaEvent_t event : after_) cudaEventDestroy(event);
    }

    int64_t run(std::function<void(Context&)> work) override {
        engine_.check(cudaEventRecord(before_, engine_.stream()), "marking work for a lane");
        engine_.check(cudaStreamWaitEvent(own_.stream(), before_, 0), "starting a lane");
        work(context_);
        engine_.check(cudaEventRecord(after(++queued_), own_.stream()), "marking a lane's work");
        return queued_;
    }
    void wait(int64_t number) override { engine_.check(cudaStreamWaitEvent(engine_.stream(), after(number), 0), "waiting for a lane"); }

private:
    void make(cudaEvent_t& event) { engine_.check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event"); }
    cudaEvent_t& after(int64_t number) { return after_[static_cast<size_t>(number) % events_kept]; }

    Engine& engine_;
    Engine own_;
    Context context_;
    cudaEvent_t before_ = nullptr;
    std::array<cudaEvent_t, events_kept> after_{};
    int64_t queued_ = 0;
};

}  // namespace

std::unique_ptr<Lane> Engine::make_lane() { return std::make_unique<StreamLane>(*this); }

}  // namespace flanmoe::cuda
