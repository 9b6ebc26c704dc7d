// The host's lane: one thread and a queue. Work of the engine is done when it is queued, so a piece may begin at once.
#include "core/lane.hpp"

#include <omp.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

namespace flanmoe {

namespace {

class HostLane : public Lane {
public:
    explicit HostLane(Engine& engine) : engine_(engine), thread_([this] { work_off(); }) {}
    ~HostLane() override {
        {
            const std::lock_guard lock(mutex_);
            stop_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }

    int64_t run(std::function<void(Context&)> work) override {
        const std::lock_guard lock(mutex_);
        queue_.push_back(std::move(work));
        changed_.notify_all();
        return ++queued_;
    }
    void wait(int64_t number) override {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return done_ >= number || error_; });
        if (error_) std::rethrow_exception(error_);
    }

private:
    void work_off() {
        omp_set_num_threads(1);  // the cores are the engine's
        Context context(Device::cpu, engine_);
        std::unique_lock lock(mutex_);
        for (;;) {
            changed_.wait(lock, [&] { return stop_ || (!queue_.empty() && !error_); });
            if (stop_) return;
            const std::function<void(Context&)> work = std::move(queue_.front());
            queue_.pop_front();
            lock.unlock();
            std::exception_ptr error;
            try {
                work(context);
            } catch (...) {
                error = std::current_exception();
            }
            lock.lock();
            if (error) error_ = error;
            ++done_;
            changed_.notify_all();
        }
    }

    Engine& engine_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void(Context&)>> queue_;
    int64_t queued_ = 0, done_ = 0;
    bool stop_ = false;
    std::exception_ptr error_;  ///< the first
    std::thread thread_;        ///< last: it uses what is above
};

}  // namespace

std::unique_ptr<Lane> Engine::make_lane() { return std::make_unique<HostLane>(*this); }

}  // namespace flanmoe
