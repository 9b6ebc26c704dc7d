// NCCL on the simulator. A collective is two operations on each rank's stream: the first publishes what the rank sends, the second, which cannot run before all
// ranks have published, takes the result. Send and receive are queues between pairs. So ranks may come in any order, and graphs replay them.
#include <nccl.h>

#include "cudasim/runtime_state.hpp"

#include "core/tensor.hpp"

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <vector>

using flanmoe::bf16;

namespace {

using Bytes = std::vector<std::byte>;

struct Meeting {
    std::vector<Bytes> sent;
    int arrived = 0, left = 0;
};
/// What the ranks of a group share; touched under the simulator's lock.
struct Group {
    explicit Group(int n) : ranks(n) {}
    int ranks;
    std::map<int64_t, Meeting> meetings;
    std::map<std::pair<int, int>, std::deque<Bytes>> channels;  // from, to
};

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
void combine(const Meeting& meeting, size_t first, size_t count, ncclRedOp_t operation, void* out) {
    using Sum = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
    for (size_t i = 0; i < count; ++i) {
        const auto value = [&](const Bytes& sent) { return static_cast<Sum>(reinterpret_cast<const T*>(sent.data())[first + i]); };
        Sum sum = value(meeting.sent[0]);
        for (size_t r = 1; r < meeting.sent.size(); ++r) {
            const Sum other = value(meeting.sent[r]);
            sum = operation == ncclSum ? sum + other : sum < other ? other : sum;
        }
        static_cast<T*>(out)[i] = static_cast<T>(sum);
    }
}

void combine(ncclDataType_t type, const Meeting& meeting, size_t first, size_t count, ncclRedOp_t operation, void* out) {
    switch (type) {
        case ncclFloat32: return combine<float>(meeting, first, count, operation, out);
        case ncclFloat64: return combine<double>(meeting, first, count, operation, out);
        case ncclBfloat16: return combine<bf16>(meeting, first, count, operation, out);
        case ncclInt32: return combine<int32_t>(meeting, first, count, operation, out);
        case ncclInt64: return combine<int64_t>(meeting, first, count, operation, out);
        case ncclUint8: return combine<uint8_t>(meeting, first, count, operation, out);
    }
}

}  // namespace

struct ncclComm {
    std::shared_ptr<Group> group;
    int rank;
    int64_t begun = 0, ended = 0;  // collectives whose operations have run
};

namespace {

std::map<int64_t, std::shared_ptr<Group>>& groups() {
    static std::map<int64_t, std::shared_ptr<Group>> all;
    return all;
}

ncclResult_t& broken() {
    static ncclResult_t error = ncclSuccess;
    return error;
}

int64_t number_of(const ncclUniqueId& id) {
    int64_t number = 0;
    std::memcpy(&number, id.internal, sizeof number);
    return number;
}

ncclResult_t result_of(cudaError_t error) { return error == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError; }

/// `take` gets everyone's bytes; ranks that send different numbers of them are a failure, as they would hang or corrupt on hardware.
ncclResult_t collective(ncclComm_t comm, cudaStream_t stream, const void* send, size_t bytes, std::function<void(const Meeting&)> take) {
    const std::lock_guard lock(cudasim::mutex());
    const auto publish = [=] {
        Meeting& meeting = comm->group->meetings[comm->begun++];
        meeting.sent.resize(static_cast<size_t>(comm->group->ranks));
        const auto* from = static_cast<const std::byte*>(send);
        meeting.sent[static_cast<size_t>(comm->rank)] = Bytes(from, from + bytes);
        ++meeting.arrived;
    };
    const auto all_here = [=] {
        const auto found = comm->group->meetings.find(comm->ended);
        return found != comm->group->meetings.end() && found->second.arrived == comm->group->ranks;
    };
    const auto leave = [=, take = std::move(take)] {
        Meeting& meeting = comm->group->meetings[comm->ended];
        for (const Bytes& theirs : meeting.sent)
            if (theirs.size() != bytes) return void(cudasim::fail("ranks call a collective with different sizes"));
        take(meeting);
        if (++meeting.left == comm->group->ranks) comm->group->meetings.erase(comm->ended);
        ++comm->ended;
    };
    if (const cudaError_t error = cudasim::queue_work(stream, publish)) return result_of(error);
    return result_of(cudasim::queue_work_when(all_here, stream, leave));
}

ncclResult_t queue_transfer(const Transfer& t) {
    Group& group = *t.group->group;
    if (t.send) {
        std::deque<Bytes>& channel = group.channels[{t.group->rank, t.peer}];
        return result_of(cudasim::queue_work(t.stream, [&channel, t] {
            const auto* from = static_cast<const std::byte*>(t.from);
            channel.emplace_back(from, from + t.bytes);
        }));
    }
    std::deque<Bytes>& channel = group.channels[{t.peer, t.group->rank}];
    return result_of(cudasim::queue_work_when([&channel] { return !channel.empty(); }, t.stream, [&channel, t] {
        if (channel.front().size() != t.bytes) return void(cudasim::fail("a rank receives a different number of bytes than its peer sends"));
        std::memcpy(t.to, channel.front().data(), t.bytes);
        channel.pop_front();
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
    ++number;
    std::memcpy(id->internal, &number, sizeof number);
    return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
    const std::lock_guard lock(cudasim::mutex());
    std::shared_ptr<Group>& group = groups()[number_of(id)];
    if (!group) group = std::make_shared<Group>(ranks);
    if (group->ranks != ranks || rank < 0 || rank >= ranks) return ncclInvalidArgument;
    *comm = new ncclComm{group, rank};
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
    return collective(comm, stream, send, count * size_of(type), [=](const Meeting& meeting) { combine(type, meeting, 0, count, operation, receive); });
}
ncclResult_t ncclAllGather(const void* send, void* receive, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * size_of(type);
    return collective(comm, stream, send, bytes, [=](const Meeting& meeting) {
        for (size_t r = 0; r < meeting.sent.size(); ++r) std::memcpy(static_cast<std::byte*>(receive) + r * bytes, meeting.sent[r].data(), bytes);
    });
}
ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
    return collective(comm, stream, send, count * size_of(type) * static_cast<size_t>(comm->group->ranks),
                      [=](const Meeting& meeting) { combine(type, meeting, static_cast<size_t>(comm->rank) * count, count, operation, receive); });
}
ncclResult_t ncclReduce(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t operation, int root, ncclComm_t comm, cudaStream_t stream) {
    return collective(comm, stream, send, count * size_of(type), [=](const Meeting& meeting) {
        if (comm->rank == root) combine(type, meeting, 0, count, operation, receive);
    });
}
ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * size_of(type);
    return collective(comm, stream, send, bytes, [=](const Meeting& meeting) { std::memcpy(receive, meeting.sent[static_cast<size_t>(root)].data(), bytes); });
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
