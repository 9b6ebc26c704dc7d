#include "cudasim/async_copies.hpp"

#include "cudasim/scheduler.hpp"

#include <cstring>
#include <vector>

namespace cudasim {

namespace {

struct Copy {
    void* to;
    const void* from;
    int bytes, group;
};
struct Copies {
    std::vector<Copy> late;  // in the order of their groups
    int open = 0;            // number of the open group
};

// Of the block that runs on this host thread, by CUDA thread.
thread_local std::vector<Copies> copies;
thread_local uint64_t state = 0;

Copies& own() {
    const size_t thread = threadIdx.x + blockDim.x * (threadIdx.y + size_t{blockDim.y} * threadIdx.z);
    if (copies.size() <= thread) copies.resize(size_t{blockDim.x} * blockDim.y * blockDim.z);
    return copies[thread];
}

void land(const Copy& copy) {
    std::memset(copy.to, 0, 16);
    std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
}

bool lands_late() {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state >> 63;
}

}  // namespace

void async_copy(void* to, const void* from, int bytes) {
    if (bytes < 0 || bytes > 16) fail_thread("an asynchronous copy of " + std::to_string(bytes) + " bytes; 0 to 16 can be copied");
    Copies& c = own();
    const Copy copy{to, from, bytes, c.open};
    if (lands_late()) c.late.push_back(copy);
    else land(copy);
}

void async_commit() { ++own().open; }

void async_wait(int pending) {
    Copies& c = own();
    size_t count = 0;
    while (count < c.late.size() && c.late[count].group < c.open - pending) land(c.late[count++]);
    c.late.erase(c.late.begin(), c.late.begin() + static_cast<ptrdiff_t>(count));
}

void forget_async_copies() {
    if (!copies.empty()) copies.clear();
    if (state == 0) state = (options().seed + 1) * 0x9E3779B97F4A7C15ull | 1;
}

}  // namespace cudasim
