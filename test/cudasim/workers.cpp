#include "cudasim/workers.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace cudasim {

namespace {

class Pool {
public:
    ~Pool() {
        {
            const std::lock_guard lock(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        for (std::thread& thread : threads_) thread.join();
    }

    void run(int helpers, const std::function<void()>& work) {
        {
            const std::lock_guard lock(mutex_);
            while (static_cast<int>(threads_.size()) < helpers) threads_.emplace_back([this] { serve(); });
            work_ = &work;
            wanted_ = running_ = helpers;
        }
        wake_.notify_all();
        work();
        std::unique_lock lock(mutex_);
        // A helper that has not woken up yet is not waited for.
        running_ -= wanted_;
        wanted_ = 0;
        done_.wait(lock, [this] { return running_ == 0; });
    }

private:
    void serve() {
        std::unique_lock lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return ending_ || wanted_ > 0; });
            if (ending_) return;
            --wanted_;
            const std::function<void()>& work = *work_;
            lock.unlock();
            work();
            lock.lock();
            if (--running_ == 0) done_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> threads_;
    const std::function<void()>* work_ = nullptr;
    int wanted_ = 0, running_ = 0;
    bool ending_ = false;
};

}  // namespace

void run_on_workers(int count, const std::function<void()>& work) {
    if (count <= 1) return work();
    static std::mutex mutex;  // one launch at a time has the pool; others run alone
    static Pool pool;
    const std::unique_lock lock(mutex, std::try_to_lock);
    lock ? pool.run(count - 1, work) : work();
}

}  // namespace cudasim
