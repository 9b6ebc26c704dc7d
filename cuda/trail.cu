#include "trail.hpp"

#include "launch.hpp"

#include <cstring>

namespace flanmoe::cuda {

namespace {

constexpr size_t most_streams = 16;
constexpr size_t places_kept = 1 << 14;  ///< collectives that a host may have queued ahead of its device and still be told by name

__global__ void leave_mark(volatile int64_t* place, int64_t serial) { *place = serial; }

int64_t read(const int64_t& mark) { return *const_cast<const volatile int64_t*>(&mark); }

}  // namespace

Trail::Trail(Engine& engine, const Activity* activity, Progress& progress)
    : activity_(activity), progress_(progress), memory_(engine, most_streams * sizeof(Mark)), marks_(static_cast<Mark*>(memory_.data())), places_(places_kept) {
    if (!marks_) fail(Exit::out_of_memory, "out of memory: there is no room for the marks of collectives");
    std::memset(marks_, 0, most_streams * sizeof(Mark));
    progress_.follow(this);
}
Trail::~Trail() { progress_.follow(nullptr); }

Trail::Mark* Trail::mark_of(cudaStream_t stream) {
    size_t i = 0;
    while (i < streams_.size() && streams_[i] != stream) ++i;
    if (i < streams_.size()) return &marks_[i];
    if (i == most_streams) {  // the oldest is long gone
        i = next_++ % most_streams;
        streams_[i] = stream;
    } else {
        streams_.push_back(stream);
    }
    return &marks_[i];
}

void Trail::begin(Context& context, Collective collective) {
    Mark* const mark = mark_of(engine_of(context).stream());
    ++queued_;
    {
        const std::lock_guard lock(mutex_);
        places_[static_cast<size_t>(queued_) % places_kept] = {activity_ ? activity_->part.load() : nullptr, name_of(collective), activity_ ? activity_->layer.load() : -1};
    }
    launch(context, "mark of a collective's begin", leave_mark, dim3(1), dim3(1), 0, &mark->begun, queued_);
}

void Trail::end(Context& context) { launch(context, "mark of a collective's end", leave_mark, dim3(1), dim3(1), 0, &mark_of(engine_of(context).stream())->ended, queued_); }

// A stream that waits in a collective is told before one that does not; of several of a kind the one that was queued last.
DeviceProgress::Reached Trail::reached() const {
    Reached reached;
    int64_t last = 0;
    bool waits = false;
    for (size_t i = 0; i < most_streams; ++i) {
        const int64_t ended = read(marks_[i].ended), begun = read(marks_[i].begun);
        reached.begun += begun, reached.ended += ended;
        if (begun == 0 || (begun > ended) < waits || ((begun > ended) == waits && begun < last)) continue;
        last = begun, waits = begun > ended;
    }
    if (last == 0) return reached;
    const std::lock_guard lock(mutex_);
    const Place& place = places_[static_cast<size_t>(last) % places_kept];
    reached.part = place.part, reached.layer = place.layer, reached.collective = place.collective;
    return reached;
}

}  // namespace flanmoe::cuda
