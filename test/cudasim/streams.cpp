// Streams, events, graphs and launches of the simulated runtime.
//
// A stream is a queue of operations. Without deferral each is run as soon as it is queued. With it, calls that queue run some pending operation now and then,
// and calls that wait run drawn ones until what they wait for is done: of several streams any may be ahead, unless an event orders them.
// Graphs: while a stream captures, its operations become nodes that name the nodes they follow; a replay runs them in any order that respects that.
#include "cudasim/runtime_state.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace {

enum class Kind { work, record, wait };

struct Node {
    std::function<void()> work;
    std::function<bool()> ready;  // empty: at once
    const void* kernel;  // identifies kind for updates: null for copies and the like
    std::vector<size_t> after;
};
struct Capture {
    std::vector<Node> nodes;
    cudaStream_t origin;
    bool invalid = false;
    std::thread::id owner;  // whose calls may not wait or allocate; nobody's: anybody's
};

}  // namespace

struct CUevent_st {
    uint64_t recorded = 0, done = 0;  // numbers of the last record asked for, and run
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<Capture> capture;
    std::vector<size_t> after;
};

namespace {
struct Operation {
    Kind kind;
    std::function<void()> work;
    std::function<bool()> ready;
    cudaEvent_t event = nullptr;
    uint64_t number = 0;
};
}  // namespace

struct CUstream_st {
    std::deque<Operation> queue;
    std::shared_ptr<Capture> capture;
    std::vector<size_t> tail;  // nodes that the next one follows
    int device = cudasim::this_device();
};
struct CUgraph_st {
    std::vector<Node> nodes;
};
struct CUgraphExec_st {
    std::shared_ptr<std::vector<Node>> nodes;
};

namespace cudasim {

namespace {

CUstream_st& null_stream() {
    static CUstream_st stream;
    return stream;
}
std::set<cudaStream_t>& streams() {
    static std::set<cudaStream_t> streams{&null_stream()};
    return streams;
}
CUstream_st& of(cudaStream_t stream) { return stream ? *stream : null_stream(); }

uint64_t& draw_state() {
    static uint64_t state = options().seed * 0x9E3779B97F4A7C15ull | 1;
    return state;
}
uint64_t draw() {
    uint64_t& state = draw_state();
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state >> 20;
}

bool runnable(const CUstream_st& stream) {
    if (stream.queue.empty()) return false;
    const Operation& first = stream.queue.front();
    return first.kind == Kind::wait ? first.event->done >= first.number : !first.ready || first.ready();
}

// Told whenever an operation has run or been queued: a host thread may wait for what another one's stream does.
std::condition_variable_any& progress() {
    static std::condition_variable_any changed;
    return changed;
}
constexpr std::chrono::seconds patience{60};
bool look_around = false;

void run_first(CUstream_st& stream) {
    const Operation operation = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (operation.kind == Kind::work) operation.work();
    if (operation.kind == Kind::record) operation.event->done = operation.number, operation.event->time = std::chrono::steady_clock::now();
    progress().notify_all();
}

// Runs one operation of a drawn stream; false if there is none that can run.
bool run_some() {
    std::vector<CUstream_st*> ready;
    for (cudaStream_t stream : streams())
        if (runnable(*stream)) ready.push_back(stream);
    if (ready.empty()) return false;
    run_first(*ready[draw() % ready.size()]);
    return true;
}

// Where nothing can run, the streams wait for other host threads: ranks that have not come to a collective yet.
void run_until(const std::function<bool()>& done) {
    const auto limit = std::chrono::steady_clock::now() + patience;
    while (!done() && !failed()) {
        if (run_some()) continue;
        if (std::all_of(streams().begin(), streams().end(), [](cudaStream_t s) { return s->queue.empty(); })) return;
        const auto now = std::chrono::steady_clock::now();
        const auto until = look_around ? std::min(limit, now + std::chrono::milliseconds(1)) : limit;
        if (progress().wait_until(mutex(), until) == std::cv_status::timeout && until == limit) fail("a stream waits for a collective that not all ranks have come to");
    }
}

void queue(CUstream_st& stream, Operation operation) {
    stream.queue.push_back(std::move(operation));
    progress().notify_all();
    if (!options().deferred_streams) {
        while (run_some()) {}
    } else if (draw() % 4 == 0) {
        run_some();
    }
}

// Whether the capture of this stream forbids this thread to wait and allocate.
bool forbids(cudaStream_t s) { return s->capture && (s->capture->owner == std::thread::id() || s->capture->owner == std::this_thread::get_id()); }
bool any_capture() { return std::any_of(streams().begin(), streams().end(), forbids); }

}  // namespace

void look_around_while_waiting() { look_around = true; }

void draw_streams_anew() {
    const std::lock_guard lock(mutex());
    draw_state() = options().seed * 0x9E3779B97F4A7C15ull | 1;
}

void drop_work() {
    for (cudaStream_t stream : streams()) {
        for (const Operation& operation : stream->queue)
            if (operation.kind == Kind::record) operation.event->done = operation.number;
        stream->queue.clear();
    }
}

cudaError_t refuse_in_capture() {
    if (!any_capture()) return cudaSuccess;
    for (cudaStream_t stream : streams())
        if (forbids(stream)) stream->capture->invalid = true;
    return set_error(cudaErrorStreamCaptureUnsupported);
}

void finish_all() {
    run_until([] { return std::all_of(streams().begin(), streams().end(), [](cudaStream_t s) { return s->queue.empty() || s->device != this_device(); }); });
}
void finish(cudaStream_t stream) {
    run_until([&] { return of(stream).queue.empty(); });
}
bool capturing(cudaStream_t stream) { return of(stream).capture != nullptr; }

cudaError_t queue_work(cudaStream_t stream, std::function<void()> work, const void* kernel) { return queue_work_when({}, stream, std::move(work), kernel); }
cudaError_t queue_work_when(std::function<bool()> ready, cudaStream_t stream, std::function<void()> work, const void* kernel) {
    CUstream_st& s = of(stream);
    if (s.capture) {
        s.capture->nodes.push_back({std::move(work), std::move(ready), kernel, s.tail});
        s.tail = {s.capture->nodes.size() - 1};
        return cudaSuccess;
    }
    queue(s, {.kind = Kind::work, .work = std::move(work), .ready = std::move(ready)});
    return failure();
}

namespace {

std::map<std::pair<int, const void*>, int>& shared_limits() {  // by device and kernel
    static std::map<std::pair<int, const void*>, int> limits;
    return limits;
}
thread_local std::string next_name;

// Queues the nodes, each after those it follows: in order of capture, or drawn.
void replay(CUstream_st& stream, const std::vector<Node>& nodes) {
    std::vector<char> done(nodes.size());
    std::vector<size_t> ready;
    for (size_t left = nodes.size(); left > 0 && !failed(); --left) {
        ready.clear();
        for (size_t n = 0; n < nodes.size(); ++n)
            if (!done[n] && std::all_of(nodes[n].after.begin(), nodes[n].after.end(), [&](size_t a) { return done[a]; })) ready.push_back(n);
        const size_t n = options().deferred_streams ? ready[draw() % ready.size()] : ready[0];
        queue(stream, {.kind = Kind::work, .work = nodes[n].work, .ready = nodes[n].ready});
        done[n] = 1;
    }
}

}  // namespace

void name_next_launch(const char* name) { next_name = name; }

cudaError_t set_shared_limit(const void* kernel, int bytes) {
    const std::lock_guard lock(mutex());
    if (bytes > static_cast<int>(most_shared())) return set_error(cudaErrorInvalidValue);
    shared_limits()[{this_device(), kernel}] = bytes;
    return cudaSuccess;
}

cudaError_t queue_launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> body) {
    const std::lock_guard lock(mutex());
    Launch launch{next_name.empty() ? "without a name" : next_name, config.gridDim, config.blockDim, config.dynamicSmemBytes, std::move(body)};
    next_name.clear();
    const auto limit = shared_limits().find({this_device(), kernel});
    if (std::string refusal = beyond_limits(launch); !refusal.empty()) return fail(std::move(refusal));
    if (launch.shared_bytes > 48 << 10 && (limit == shared_limits().end() || launch.shared_bytes > static_cast<size_t>(limit->second)))
        return fail("kernel '" + launch.name + "' cannot be launched: more than 48 KB of shared memory must be asked for with cudaFuncSetAttribute");
    if (!capturing(config.stream)) ++count().launches;
    return queue_work(
        config.stream,
        [launch = std::move(launch)] {
            if (std::string sentence = run(launch); !sentence.empty()) fail(std::move(sentence));
        },
        kernel);
}

}  // namespace cudasim

using namespace cudasim;

cudaError_t cudaDeviceSynchronize() {
    const std::lock_guard lock(mutex());
    if (const cudaError_t refused = refuse_in_capture()) return refused;
    ++count().synchronisations;
    finish_all();
    return failure();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    const std::lock_guard lock(mutex());
    *stream = nullptr;
    if (machine().start != cudaSuccess) return set_error(machine().start);
    *stream = new CUstream_st;
    streams().insert(*stream);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const std::lock_guard lock(mutex());
    finish(stream);
    streams().erase(stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const std::lock_guard lock(mutex());
    if (const cudaError_t refused = refuse_in_capture()) return refused;
    ++count().synchronisations;
    finish(stream);
    return failure();
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    const std::lock_guard lock(mutex());
    run_some();
    return of(stream).queue.empty() ? failure() : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const std::lock_guard lock(mutex());
    CUstream_st& s = of(stream);
    if (event->capture) {
        if (!s.capture) s.capture = event->capture, s.tail.clear();
        if (s.capture != event->capture) return set_error(cudaErrorInvalidValue);
        s.tail.insert(s.tail.end(), event->after.begin(), event->after.end());
        return cudaSuccess;
    }
    if (s.capture) return set_error(cudaErrorStreamCaptureUnsupported);
    queue(s, {.kind = Kind::wait, .event = event, .number = event->recorded});
    return failure();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new CUevent_st;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const std::lock_guard lock(mutex());
    CUstream_st& s = of(stream);
    event->capture = s.capture;
    event->after = s.tail;
    if (s.capture) return cudaSuccess;
    queue(s, {.kind = Kind::record, .event = event, .number = ++event->recorded});
    return failure();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const std::lock_guard lock(mutex());
    if (const cudaError_t refused = refuse_in_capture()) return refused;
    ++count().synchronisations, ++count().event_waits;
    run_until([&] { return event->done >= event->recorded; });
    return failure();
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    const std::lock_guard lock(mutex());
    run_some();
    return event->done >= event->recorded ? failure() : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    const std::lock_guard lock(mutex());
    if (start->done < start->recorded || end->done < end->recorded) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const std::lock_guard lock(mutex());
    finish_all();  // operations in queues name it
    delete event;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    const std::lock_guard lock(mutex());
    CUstream_st& s = of(stream);
    if (!stream || s.capture) return set_error(cudaErrorStreamCaptureUnsupported);
    s.capture = std::make_shared<Capture>();
    s.capture->origin = stream;
    if (mode == cudaStreamCaptureModeThreadLocal) s.capture->owner = std::this_thread::get_id();
    s.tail.clear();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    const std::lock_guard lock(mutex());
    const std::shared_ptr<Capture> capture = of(stream).capture;
    *graph = nullptr;
    if (!capture || capture->origin != stream) return set_error(cudaErrorInvalidValue);
    // Work of other streams counts only if this stream has waited for it.
    std::vector<char> joined(capture->nodes.size());
    for (size_t n : stream->tail) joined[n] = 1;
    for (size_t n = joined.size(); n-- > 0;)
        if (joined[n])
            for (size_t a : capture->nodes[n].after) joined[a] = 1;
    for (cudaStream_t s : streams())
        if (s->capture == capture) s->capture = nullptr, s->tail.clear();
    if (capture->invalid) return set_error(cudaErrorStreamCaptureInvalidated);
    if (std::find(joined.begin(), joined.end(), 0) != joined.end()) return set_error(cudaErrorStreamCaptureUnjoined);
    *graph = new CUgraph_st{std::move(capture->nodes)};
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    const std::lock_guard lock(mutex());
    const CUstream_st& s = of(stream);
    *status = !s.capture ? cudaStreamCaptureStatusNone : s.capture->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    *exec = new CUgraphExec_st{std::make_shared<std::vector<Node>>(graph->nodes)};
    return cudaSuccess;
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* info) {
    const std::lock_guard lock(mutex());
    const auto alike = [](const Node& a, const Node& b) { return a.kernel == b.kernel && a.after == b.after; };
    const bool same = exec->nodes->size() == graph->nodes.size() && std::equal(exec->nodes->begin(), exec->nodes->end(), graph->nodes.begin(), alike);
    info->result = same ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateErrorTopologyChanged;
    if (!same) return set_error(cudaErrorGraphExecUpdateFailure);
    exec->nodes = std::make_shared<std::vector<Node>>(graph->nodes);  // launches in flight keep theirs
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    const std::lock_guard lock(mutex());
    ++count().graph_launches;
    if (of(stream).capture) return set_error(cudaErrorStreamCaptureUnsupported);
    replay(of(stream), *exec->nodes);
    return failure();
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete exec;
    return cudaSuccess;
}
