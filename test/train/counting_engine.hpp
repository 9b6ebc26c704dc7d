// The host's engine that counts what is taken of it, in the pieces of whole cache lines that it gives.
#pragma once

#include "core/engine.hpp"

#include <atomic>

namespace flanmoe::test {

class CountingEngine : public Engine {
public:
    int64_t taken() const { return taken_; }  ///< bytes, released ones included

    void* allocate(int64_t bytes) override {
        taken_ += (bytes + 63) / 64 * 64;
        return host_engine().allocate(bytes);
    }
    void release(void* memory) override { host_engine().release(memory); }
    void zero(void* memory, int64_t bytes) override { host_engine().zero(memory, bytes); }
    void upload(void* to, const void* host, int64_t bytes) override { host_engine().upload(to, host, bytes); }
    void download(void* host, const void* from, int64_t bytes) override { host_engine().download(host, from, bytes); }
    void copy_rows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t bytes, int64_t rows) override {
        host_engine().copy_rows(to, to_stride, from, from_stride, bytes, rows);
    }
    bool on_host() const override { return true; }
    void synchronize() override {}
    void* allocate_pinned(int64_t bytes) override { return host_engine().allocate_pinned(bytes); }
    void release_pinned(void* memory) override { host_engine().release_pinned(memory); }
    void upload_later(void* to, const void* pinned, int64_t bytes) override { host_engine().upload_later(to, pinned, bytes); }
    void download_later(void* pinned, const void* from, int64_t bytes) override { host_engine().download_later(pinned, from, bytes); }

private:
    std::atomic<int64_t> taken_ = 0;
};

}  // namespace flanmoe::test
