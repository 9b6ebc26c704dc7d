// NCCL on the simulator. A collective is two operations on each rank's stream: the first publishes what the rank sends, the second, which cannot run before all
// ranks have published, takes the result. Send and receive are queues between pairs. So ranks may come in any order, and graphs replay them.
#include <nccl.h>

#include "cudasim/nccl_group.hpp"
#include "cudasim/runtime_state.hpp"

#include "core/tensor.hpp"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <unistd.h>
#include <vector>

using flanmoe::bf16;

namespace {

using cudasim::Bytes;
using cudasim::NcclGroup;
using Published = std::vector<Bytes>;  // by rank

struct Transfer {
    bool send;
    const void* from;
    void* to;
    size_t bytes;
    int peer;
    ncclComm_t group;
    cudaStream_t stream;
};
thread_local std::vector<Transfer> transfers;
thread_local int open_groups = 0;

size_t size_of(ncclDataType_t type) {
    switch (type) {
        case ncclUint8: return 1;
        case ncclBfloat16: return 2;
        case ncclInt32:
        case ncclFloat32: return 4;
        default: return 8;
    }
}

template <class T>
void combine(const Published& sent, size_t first, size_t count, ncclRedOp_t operation, void* out) {
    using Sum = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
    for (size_t i = 0; i < count; ++i) {
        const auto value = [&](const Bytes& theirs) { return static_cast<Sum>(reinterpret_cast<const T*>(theirs.data())[first + i]); };
        Sum sum = value(sent[0]);
        for (size_t r = 1; r < sent.size(); ++r) {
            const Sum other = value(sent[r]);
            sum = operation == ncclSum ? sum + other : sum < other ? other : sum;
        }
        static_cast<T*>(out)[i] = static_cast<T>(sum);
    }
}

void combine(ncclDataType_t type, const Published& sent, size_t first, size_t count, ncclRedOp_t operation, void* out) {
    switch (type) {
        case ncclFloat32: return combine<float>(sent, first, count, operation, out);
        case ncclFloat64: return combine<double>(sent, first, count, operation, out);
        case ncclBfloat16: return combine<bf16>(sent, first, count, operation, out);
        case ncclInt32: return combine<int32_t>(sent, first, count, operation, out);
        case ncclInt64: return combine<int64_t>(sent, first, count, operation, out);
        case ncclUint8: return combine<uint8_t>(sent, first, count, operation, out);
    }
}

}  // namespace

struct ncclComm {
    std::shared_ptr<NcclGroup> group;
    int ranks, rank;
    int64_t begun = 0, ended = 0;  // collectives whose operations have run
};

namespace {

std::map<std::string, std::shared_ptr<NcclGroup>>& groups() {
    static std::map<std::string, std::shared_ptr<NcclGroup>> all;
    return all;
}

ncclResult_t& broken() {
    static ncclResult_t error = ncclSuccess;
    return error;
}

ncclResult_t result_of(cudaError_t error) { return error == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError; }

/// `take` gets everyone's bytes; ranks that send different numbers of them are a failure, as they would hang or corrupt on hardware.
ncclResult_t collective(ncclComm_t comm, cudaStream_t stream, const void* send, size_t bytes, std::function<void(const Published&)> take) {
    const std::lock_guard lock(cudasim::mutex());
    const auto publish = [=] {
        const auto* from = static_cast<const std::byte*>(send);
        comm->group->publish(comm->begun++, comm->rank, Bytes(from, from + bytes));
    };
    const auto all_here = [=] { return comm->group->all_published(comm->ended); };
    const auto leave = [=, take = std::move(take)] {
        const Published sent = comm->group->take(comm->ended++, comm->rank);
        for (const Bytes& theirs : sent)
            if (theirs.size() != bytes) return void(cudasim::fail("ranks call a collective with different sizes"));
        take(sent);
    };
    if (const cudaError_t error = cudasim::queue_work(stream, publish)) return result_of(error);
    return result_of(cudasim::queue_work_when(all_here, stream, leave));
}

ncclResult_t queue_transfer(const Transfer& t) {
    NcclGroup* const group = t.group->group.get();
    const int own = t.group->rank;
    if (t.send) {
        return result_of(cudasim::queue_work(t.stream, [=] {
            const auto* from = static_cast<const std::byte*>(t.from);
            group->send(own, t.peer, Bytes(from, from + t.bytes));
        }));
    }
    return result_of(cudasim::queue_work_when([=] { return group->has_sent(t.peer, own); }, t.stream, [=] {
        const Bytes bytes = group->receive(t.peer, own);
        if (bytes.size() != t.bytes) return void(cudasim::fail("a rank receives a different number of bytes than its peer sends"));
        std::memcpy(t.to, bytes.data(), t.bytes);
    }));
}

ncclResult_t transfer(const Transfer& t) {
    transfers.push_back(t);
    return open_groups ? ncclSuccess : (++open_groups, ncclGroupEnd());
}

}  // namespace

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    const std::lock_guard lock(cudasim::mutex());
    static int64_t number = 0;
    *id = {};
    std::snprintf(id->internal, sizeof id->internal, "%d-%lld", static_cast<int>(::getpid()), static_cast<long long>(++number));
    return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
    const std::lock_guard lock(cudasim::mutex());
    if (ranks < 1 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
    std::shared_ptr<NcclGroup>& group = groups()[id.internal];
    const char* const folder = std::getenv("FLANMOE_SIM_NCCL");
    if (!group) group = folder ? cudasim::group_of_processes(folder, id.internal, ranks) : cudasim::group_of_threads(ranks);
    *comm = new ncclComm{group, ranks, rank};
    return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    const std::lock_guard lock(cudasim::mutex());
    cudasim::finish_all();  // operations in queues name it
    delete comm;
    return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    const std::lock_guard lock(cudasim::mutex());
    cudasim::drop_work();
    delete comm;
    return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
    switch (result) {
        case ncclSuccess: return "no error";
        case ncclRemoteError: return "remote process exited or there was a network error";
        case ncclSystemError: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
        case ncclInvalidArgument: return "invalid argument";
        default: return "unhandled cuda error";
    }
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
    const std::lock_guard lock(cudasim::mutex());
    *error = broken();
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
    return collective(comm, stream, send, count * size_of(type), [=](const Published& sent) { combine(type, sent, 0, count, operation, receive); });
}
ncclResult_t ncclAllGather(const void* send, void* receive, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * size_of(type);
    return collective(comm, stream, send, bytes, [=](const Published& sent) {
        for (size_t r = 0; r < sent.size(); ++r) std::memcpy(static_cast<std::byte*>(receive) + r * bytes, sent[r].data(), bytes);
    });
}
ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
    return collective(comm, stream, send, count * size_of(type) * static_cast<size_t>(comm->ranks),
                      [=](const Published& sent) { combine(type, sent, static_cast<size_t>(comm->rank) * count, count, operation, receive); });
}
ncclResult_t ncclReduce(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t operation, int root, ncclComm_t comm, cudaStream_t stream) {
    return collective(comm, stream, send, count * size_of(type), [=](const Published& sent) {
        if (comm->rank == root) combine(type, sent, 0, count, operation, receive);
    });
}
ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * size_of(type);
    return collective(comm, stream, send, bytes, [=](const Published& sent) { std::memcpy(receive, sent[static_cast<size_t>(root)].data(), bytes); });
}
ncclResult_t ncclSend(const void* send, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    return transfer({true, send, nullptr, count * size_of(type), peer, comm, stream});
}
ncclResult_t ncclRecv(void* receive, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    return transfer({false, nullptr, receive, count * size_of(type), peer, comm, stream});
}
ncclResult_t ncclGroupStart() {
    ++open_groups;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
    if (--open_groups > 0) return ncclSuccess;
    const std::lock_guard lock(cudasim::mutex());
    const std::vector<Transfer> all = std::exchange(transfers, {});
    for (const bool sends : {true, false})  // together, so that no pair waits for each other
        for (const Transfer& t : all)
            if (t.send == sends)
                if (const ncclResult_t result = queue_transfer(t); result != ncclSuccess) return result;
    return ncclSuccess;
}

namespace cudasim {

void* nccl_symbol(const char* name) {
#define CUDASIM_SYMBOL(function) {#function, reinterpret_cast<void*>(&function)}
    static const std::map<std::string, void*> symbols = {
        CUDASIM_SYMBOL(ncclGetUniqueId), CUDASIM_SYMBOL(ncclCommInitRank), CUDASIM_SYMBOL(ncclCommDestroy), CUDASIM_SYMBOL(ncclCommAbort),
        CUDASIM_SYMBOL(ncclGetErrorString), CUDASIM_SYMBOL(ncclCommGetAsyncError), CUDASIM_SYMBOL(ncclAllReduce), CUDASIM_SYMBOL(ncclAllGather),
        CUDASIM_SYMBOL(ncclReduceScatter), CUDASIM_SYMBOL(ncclReduce), CUDASIM_SYMBOL(ncclBroadcast), CUDASIM_SYMBOL(ncclSend), CUDASIM_SYMBOL(ncclRecv), CUDASIM_SYMBOL(ncclGroupStart),
        CUDASIM_SYMBOL(ncclGroupEnd)};
#undef CUDASIM_SYMBOL
    const auto found = symbols.find(name);
    return found == symbols.end() ? nullptr : found->second;
}

void break_groups(ncclResult_t error) {
    const std::lock_guard lock(mutex());
    broken() = error;
}

}  // namespace cudasim
