// Counted, not measured: an all-reduce of N bytes over n ranks moves 2 (n - 1) / n N from each; NVLink of an H100 gives about 360 GB/s of them.
#include "nccl.hpp"

#include "engine.hpp"
#include "library.hpp"
#include "trail.hpp"

#include "comm/agreement.hpp"
#include "comm/world.hpp"

#include <algorithm>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <thread>

#if __has_include(<nccl.h>)
#include <nccl.h>
#define FLANMOE_NCCL
#endif

namespace flanmoe::cuda {

#ifdef FLANMOE_NCCL

namespace {

void* symbol(const char* name) {
#ifdef FLANMOE_CUDASIM
    return cudasim::nccl_symbol(name);
#else
    static const Library library("libnccl.so.2");
    return library.symbol(name);
#endif
}

// The library's functions that we call, under their own names.
struct Functions {
    template <class F>
    static void find(F*& function, const char* name) {
        function = reinterpret_cast<F*>(symbol(name));
    }
    Functions() {
        find(unique_id, "ncclGetUniqueId"), find(init, "ncclCommInitRank"), find(destroy, "ncclCommDestroy"), find(abort, "ncclCommAbort");
        find(error_text, "ncclGetErrorString"), find(asynchronous_error, "ncclCommGetAsyncError");
        find(all_reduce, "ncclAllReduce"), find(all_gather, "ncclAllGather"), find(reduce_scatter, "ncclReduceScatter"), find(reduce, "ncclReduce"), find(broadcast, "ncclBroadcast");
        find(send, "ncclSend"), find(receive, "ncclRecv"), find(group_start, "ncclGroupStart"), find(group_end, "ncclGroupEnd");
    }
    decltype(::ncclGetUniqueId)* unique_id;
    decltype(::ncclCommInitRank)* init;
    decltype(::ncclCommDestroy)* destroy;
    decltype(::ncclCommAbort)* abort;
    decltype(::ncclGetErrorString)* error_text;
    decltype(::ncclCommGetAsyncError)* asynchronous_error;
    decltype(::ncclAllReduce)* all_reduce;
    decltype(::ncclAllGather)* all_gather;
    decltype(::ncclReduceScatter)* reduce_scatter;
    decltype(::ncclReduce)* reduce;
    decltype(::ncclBroadcast)* broadcast;
    decltype(::ncclSend)* send;
    decltype(::ncclRecv)* receive;
    decltype(::ncclGroupStart)* group_start;
    decltype(::ncclGroupEnd)* group_end;
};

const Functions& library() {
    static const Functions functions;
    return functions;
}

void check_nccl(ncclResult_t result, const char* what) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    fail(result == ncclRemoteError || result == ncclSystemError ? Exit::rank_failed : Exit::internal, "NCCL failed at {}: {}", what, library().error_text(result));
}

ncclDataType_t nccl_type(DType type) {
    switch (type) {
        case DType::f32: return ncclFloat32;
        case DType::f64: return ncclFloat64;
        case DType::bf16: return ncclBfloat16;
        case DType::i32: return ncclInt32;
        case DType::i64: return ncclInt64;
        default: return ncclUint8;
    }
}

// Looks at all groups of a rank twice a second for errors that come after a collective was queued.
class Watch {
public:
    explicit Watch(std::function<void(const std::string&)> failed) : failed_(std::move(failed)), thread_([this] { run(); }) {}
    ~Watch() {
        {
            const std::lock_guard lock(mutex_);
            stop_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }
    void add(ncclComm_t group) {
        const std::lock_guard lock(mutex_);
        groups_.push_back(group);
    }
    void remove(ncclComm_t group) {
        const std::lock_guard lock(mutex_);
        std::erase(groups_, group);
    }

private:
    void run() {
        std::unique_lock lock(mutex_);
        while (!changed_.wait_for(lock, std::chrono::milliseconds(500), [&] { return stop_; })) {
            for (const ncclComm_t group : groups_) {
                ncclResult_t error = ncclSuccess;
                if (const ncclResult_t asked = library().asynchronous_error(group, &error); asked != ncclSuccess) error = asked;
                if (error == ncclSuccess || error == ncclInProgress) continue;
                failed_(fmt::format("NCCL reports that a rank or a link is gone: {}", library().error_text(error)));
                return;
            }
        }
    }

    std::function<void(const std::string&)> failed_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stop_ = false;
    std::vector<ncclComm_t> groups_;
    std::thread thread_;  // last: it uses what is above
};

/// What all groups of a rank share.
struct Rank {
    bool alone;  ///< one rank is all there are: then a group of one is NCCL's too, else it has nothing to do
    Watch watch;
    Trail trail;
};

class NcclCommunicator : public Communicator {
public:
    NcclCommunicator(Communicator& host, std::shared_ptr<Rank> shared) : host_(&host), shared_(std::move(shared)) { start(); }
    NcclCommunicator(std::unique_ptr<Communicator> host, std::shared_ptr<Rank> shared) : owned_(std::move(host)), host_(owned_.get()), shared_(std::move(shared)) { start(); }
    ~NcclCommunicator() override {
        if (!group_) return;
        shared_->watch.remove(group_);
        if (std::uncaught_exceptions() > 0) library().abort(group_);  // others may never come
        else library().destroy(group_);
    }

    int rank() const override { return host_->rank(); }
    int size() const override { return host_->size(); }
    bool recordable() const override { return true; }

    void all_reduce(Context& context, const Tensor& values, Reduction reduction) override {
        if (on_host(context)) return host_->all_reduce(context, values, reduction);
        require(values.compact(), "a compact tensor to communicate");
        if (!group_ || values.elements() == 0) return;
        queue(context, Collective::all_reduce, 2 * (bound(values.elements(), size()) - share(values.elements())) * size_of(values.dtype), [&](cudaStream_t stream) {
            return library().all_reduce(values.data, values.data, elements(values), nccl_type(values.dtype), reduction == Reduction::sum ? ncclSum : ncclMax, group_, stream);
        });
    }
    void all_gather(Context& context, const Tensor& part, const Tensor& whole) override {
        if (on_host(context)) return host_->all_gather(context, part, whole);
        require(part.dtype == whole.dtype && part.compact() && whole.compact() && whole.elements() == part.elements() * size(), "a whole of as many equal parts as there are ranks");
        if (!group_) return context.engine->copy(whole.data, part.data, part.bytes());
        queue(context, Collective::all_gather, (size() - 1) * part.bytes(),
              [&](cudaStream_t stream) { return library().all_gather(part.data, whole.data, elements(part), nccl_type(part.dtype), group_, stream); });
    }
    void reduce_scatter(Context& context, const Tensor& whole, const Tensor& part) override {
        if (on_host(context)) return host_->reduce_scatter(context, whole, part);
        require(part.dtype == whole.dtype && part.compact() && whole.compact() && whole.elements() == part.elements() * size(), "a whole of as many equal parts as there are ranks");
        if (!group_) return context.engine->copy(part.data, whole.data, part.bytes());
        queue(context, Collective::reduce_scatter, (size() - 1) * part.bytes(),
              [&](cudaStream_t stream) { return library().reduce_scatter(whole.data, part.data, elements(part), nccl_type(part.dtype), ncclSum, group_, stream); });
    }
    void reduce(Context& context, const Tensor& values, int root) override {
        if (on_host(context)) return host_->reduce(context, values, root);
        require(values.compact() && root >= 0 && root < size(), "a compact tensor and a root that is a rank of the group");
        if (!group_) return;
        queue(context, Collective::reduce, rank() == root ? 0 : values.bytes(),
              [&](cudaStream_t stream) { return library().reduce(values.data, values.data, elements(values), nccl_type(values.dtype), ncclSum, root, group_, stream); });
    }
    void all_to_all(Context& context, const Tensor& send, const std::vector<RowBlock>& blocks_to, const Tensor& receive, const std::vector<RowBlock>& blocks_from) override;
    void broadcast(Context& context, const Tensor& values, int root) override {
        if (on_host(context)) return host_->broadcast(context, values, root);
        require(values.compact() && root >= 0 && root < size(), "a compact tensor and a root that is a rank of the group");
        if (!group_) return;
        queue(context, Collective::broadcast, rank() == root ? (size() - 1) * values.bytes() : 0,
              [&](cudaStream_t stream) { return library().broadcast(values.data, values.data, elements(values), nccl_type(values.dtype), root, group_, stream); });
    }
    void barrier() override {
        if (size() == 1) return;
        count(Collective::barrier, size() - 1);
        host_->barrier();
    }
    std::unique_ptr<Communicator> split(int color, int key) override { return std::make_unique<NcclCommunicator>(host_->split(color, key), shared_); }

private:
    void start();
    /// Between its marks; `work` gets the stream.
    template <class Work>
    void queue(Context& context, Collective collective, int64_t bytes, const Work& work) {
        if (size() > 1) count(collective, bytes);
        shared_->trail.begin(context, collective);
        check_nccl(work(engine_of(context).stream()), name_of(collective));
        shared_->trail.end(context);
    }
    static bool on_host(const Context& context) { return context.device == Device::cpu; }
    static size_t elements(const Tensor& tensor) { return static_cast<size_t>(tensor.elements()); }
    /// Elements of this rank's part where an all-reduce cuts the values into one part a rank.
    int64_t share(int64_t count) const { return bound(count, rank() + 1) - bound(count, rank()); }
    int64_t bound(int64_t count, int r) const { return count * r / size(); }

    std::unique_ptr<Communicator> owned_;
    Communicator* host_;
    std::shared_ptr<Rank> shared_;
    ncclComm_t group_ = nullptr;
};

// Rank 0's id reaches the others as text, since that is what the host's group carries: two letters a byte.
std::string to_text(const ncclUniqueId& id) {
    std::string text;
    for (const char c : id.internal) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return text;
}
ncclUniqueId from_text(const std::string& text) {
    ncclUniqueId id{};
    for (size_t i = 0; i < sizeof id.internal; ++i) id.internal[i] = static_cast<char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
    return id;
}

void NcclCommunicator::start() {
    if (size() == 1 && !shared_->alone) return;
    ncclUniqueId id{};
    if (rank() == 0) check_nccl(library().unique_id(&id), "the start");
    id = from_text(broadcast_text(*host_, to_text(id)));
    check_nccl(library().init(&group_, size(), id, rank()), "the start of a group of ranks");
    shared_->watch.add(group_);
}

void NcclCommunicator::all_to_all(Context& context, const Tensor& send, const std::vector<RowBlock>& blocks_to, const Tensor& receive, const std::vector<RowBlock>& blocks_from) {
    if (on_host(context)) return host_->all_to_all(context, send, blocks_to, receive, blocks_from);
    check_blocks(*this, send, blocks_to, receive, blocks_from);
    const int64_t width = send.cols() * size_of(send.dtype);
    const auto of = [width](const Tensor& tensor, const RowBlock& block) { return static_cast<char*>(tensor.data) + block.first * width; };
    const auto own = static_cast<size_t>(rank());
    if (blocks_to[own].rows > 0) context.engine->copy(of(receive, blocks_from[own]), of(send, blocks_to[own]), blocks_to[own].rows * width);
    if (size() == 1) return count(Collective::all_to_all, 0);
    int64_t sent = 0;
    for (int r = 0; r < size(); ++r)
        if (r != rank()) sent += blocks_to[static_cast<size_t>(r)].rows * width;
    queue(context, Collective::all_to_all, sent, [&](cudaStream_t stream) {
        ncclResult_t result = library().group_start();
        for (int r = 0; r < size() && result == ncclSuccess; ++r) {
            if (r == rank()) continue;
            const RowBlock out = blocks_to[static_cast<size_t>(r)], in = blocks_from[static_cast<size_t>(r)];
            if (out.rows > 0) result = library().send(of(send, out), static_cast<size_t>(out.rows * width), ncclUint8, r, group_, stream);
            if (in.rows > 0 && result == ncclSuccess) result = library().receive(of(receive, in), static_cast<size_t>(in.rows * width), ncclUint8, r, group_, stream);
        }
        const ncclResult_t ended = library().group_end();
        return result == ncclSuccess ? ended : result;
    });
}

// NCCL does not support two ranks on one GPU, and may hang.
bool share_gpus(const Engine& engine, Communicator& host) {
    char bus[32] = "";
    engine.check(cudaDeviceGetPCIBusId(bus, sizeof bus, engine.device()), "looking at the GPU");
    // Machines may have one name (containers); the system's number of this start tells them apart.
    std::string start;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), start);
    std::vector<std::string> places = gather_texts(host, fmt::format("{} {} {}", host_name(), start, bus));
    std::sort(places.begin(), places.end());
    return std::adjacent_find(places.begin(), places.end()) != places.end();
}

}  // namespace

std::unique_ptr<Communicator> nccl_communicator(Context& context, Communicator& host, Progress& progress, std::function<void(const std::string&)> failed) {
    Engine& engine = engine_of(context);
    if (share_gpus(engine, host)) return nullptr;
    return std::make_unique<NcclCommunicator>(host, std::shared_ptr<Rank>(new Rank{host.size() == 1, Watch(std::move(failed)), Trail(engine, context.activity, progress)}));
}

#else

std::unique_ptr<Communicator> nccl_communicator(Context&, Communicator&, Progress&, std::function<void(const std::string&)>) {
    fail(Exit::hardware, "this program was built without NCCL (its toolkit has no nccl.h); install it and build again");
}

#endif

}  // namespace flanmoe::cuda
