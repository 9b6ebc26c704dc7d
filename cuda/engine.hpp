// The GPU of this process: one stream for all operations, memory, and the library of plain matrix products.
//
// Work is queued in one order and nothing in an operation waits for it. Errors of the runtime become flanmoe::Error: no usable GPU is Exit::hardware, no
// memory Exit::out_of_memory, a fault in a kernel Exit::internal.
#pragma once

#include "core/context.hpp"
#include "core/engine.hpp"
#include "tables.hpp"

#include <cuda_runtime.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace flanmoe::cuda {

/// Fails unless `error` is cudaSuccess; `what` says what was tried: "kernel 'cast'", "a copy to the GPU"; `where` where in a step.
void check(cudaError_t error, const char* what, const std::string& where = "");

class Blas;

class Engine : public flanmoe::Engine {
public:
    /// Fails with Exit::hardware if there is no GPU, driver or architecture that this program can use.
    explicit Engine(int place = 0);
    ~Engine() override;
    void* allocate(int64_t bytes) override;
    void release(void* memory) override;
    void zero(void* memory, int64_t bytes) override;
    void upload(void* to, const void* host, int64_t bytes) override;
    void download(void* host, const void* from, int64_t bytes) override;
    void copy_rows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t bytes, int64_t rows) override;
    void synchronize() override;
    void* allocate_pinned(int64_t bytes) override;
    void release_pinned(void* memory) override;
    void upload_later(void* to, const void* pinned, int64_t bytes) override;
    void download_later(void* pinned, const void* from, int64_t bytes) override;
    bool records() const override { return true; }
    void run_recorded(std::unique_ptr<Recording>& recording, const std::function<void()>& work) override;
    std::unique_ptr<Lane> make_lane() override;
    int64_t mark() override;
    double seconds_between(int64_t first, int64_t second) const override;
    void forget_marks() override { marks_used_ = 0; }
    void begin_step(int64_t step) override { step_ = step; }
    void enter_part(const char* name, int layer) override;
    void leave_part() override;
    int64_t available_bytes() const override;
    int64_t device_bytes() const override;
    bool on_host() const override { return managed_; }
    bool separate_allocations() const override { return separate_allocations_; }
    void set_separate_allocations(bool on) override { separate_allocations_ = on; }

    /// cuda::check(), with step, part and layer in the message.
    void check(cudaError_t error, const char* what) const {
        if (error != cudaSuccess) cuda::check(error, what, where());
    }

    /// Lets a kernel have so much dynamic shared memory, and as much as it was ever let have: recorded launches may need it.
    void allow_shared(const void* kernel, size_t bytes, const char* name);

    /// Step, part and layer that work is queued for, as the end of a sentence.
    std::string where() const;

    int device() const { return device_; }  ///< its number among those that this process sees
    cudaStream_t stream() const { return stream_; }
    const cudaDeviceProp& properties() const { return properties_; }
    Blas& blas();  ///< loaded at the first call
    TableCache& tables() { return tables_; }

private:
    int device_ = 0;
    cudaStream_t stream_ = nullptr;
    cudaDeviceProp properties_{};
    bool managed_ = false, recording_ = false;
#ifdef FLANMOE_CUDASIM
    bool separate_allocations_ = true;
#else
    bool separate_allocations_ = false;
#endif
    int64_t step_ = -1;
    const char* part_ = nullptr;  // where the host is queueing work
    int layer_ = -1;
    std::vector<cudaEvent_t> marks_;
    size_t marks_used_ = 0;
    std::unordered_map<const void*, size_t> shared_limits_;  // by kernel
    std::unordered_map<void*, size_t> pinned_;               // sizes of what is kept for whoever asks next
    std::unordered_map<size_t, std::vector<void*>> free_pinned_;  // by size
    std::unique_ptr<Blas> blas_;
    TableCache tables_{*this};
};

/// The engine of a CUDA context.
inline Engine& engine_of(Context& context) { return static_cast<Engine&>(*context.engine); }

}  // namespace flanmoe::cuda
