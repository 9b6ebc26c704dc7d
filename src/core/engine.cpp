#include "core/engine.hpp"

#include "core/memory.hpp"
#include "core/parallel.hpp"

#include <chrono>
#include <cstdlib>
#include <cstring>

namespace flanmoe {

void Engine::run_recorded(std::unique_ptr<Recording>&, const std::function<void()>& work) { work(); }

// Where work is done when it is queued, the host's clock is the device's.
int64_t Engine::mark() { return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double Engine::seconds_between(int64_t first, int64_t second) const { return 1e-9 * static_cast<double>(second - first); }

namespace {

class HostEngine : public Engine {
public:
    void* allocate(int64_t bytes) override { return std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64)); }
    void release(void* memory) override { std::free(memory); }
    void zero(void* memory, int64_t bytes) override {
        parallel_for(bytes, 1 << 20, [&](int64_t begin, int64_t end) { std::memset(static_cast<char*>(memory) + begin, 0, static_cast<size_t>(end - begin)); });
    }
    void upload(void* to, const void* host, int64_t bytes) override { move(to, host, bytes); }
    void download(void* host, const void* from, int64_t bytes) override { move(host, from, bytes); }
    void copy_rows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t bytes, int64_t rows) override {
        parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) move(static_cast<char*>(to) + r * to_stride, static_cast<const char*>(from) + r * from_stride, bytes);
        });
    }
    int64_t available_bytes() const override { return available_memory(); }
    bool on_host() const override { return true; }
    void synchronize() override {}
    void* allocate_pinned(int64_t bytes) override { return allocate(bytes); }
    void release_pinned(void* memory) override { release(memory); }
    void upload_later(void* to, const void* pinned, int64_t bytes) override { move(to, pinned, bytes); }
    void download_later(void* pinned, const void* from, int64_t bytes) override { move(pinned, from, bytes); }

private:
    static void move(void* to, const void* from, int64_t bytes) {
        if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
    }
};

}  // namespace

std::unique_ptr<Engine> make_host_engine() { return std::make_unique<HostEngine>(); }

Engine& host_engine() {
    static HostEngine engine;
    return engine;
}

}  // namespace flanmoe
