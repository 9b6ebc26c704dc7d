// How far a rank's collectives are, for those who wait for it. Written by the threads that communicate, read by the watchdog's.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace flanmoe {

/// Of collectives that the host has only queued, how far a device is.
class DeviceProgress {
public:
    struct Reached {
        int64_t begun = 0, ended = 0;  ///< which only grow; begun > ended: the device is in a collective
        const char *part = nullptr, *collective = nullptr;  ///< of the last one that it began, literals; null: none yet
        int layer = -1;
    };
    virtual ~DeviceProgress() = default;
    /// Returns at once, whatever the device does.
    virtual Reached reached() const = 0;
};

struct Progress {
    std::atomic<int64_t> begun = 0, ended = 0;  ///< exchanges of the host, whichever thread makes them

    /// Where collectives are queued on a device: asked from now on, until it is null.
    void follow(const DeviceProgress* device) {
        const std::lock_guard lock(mutex_);
        device_ = device;
    }
    DeviceProgress::Reached of_device() const {
        const std::lock_guard lock(mutex_);
        return device_ ? device_->reached() : DeviceProgress::Reached{};
    }

private:
    mutable std::mutex mutex_;
    const DeviceProgress* device_ = nullptr;
};

/// While one exists, this rank's host is in an exchange.
class InExchange {
public:
    explicit InExchange(Progress& progress) : progress_(progress) { ++progress_.begun; }
    InExchange(const InExchange&) = delete;
    ~InExchange() { ++progress_.ended; }

private:
    Progress& progress_;
};

}  // namespace flanmoe
