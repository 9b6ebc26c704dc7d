#include "model/gradient_sync.hpp"

#include "comm/mesh.hpp"

#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace flanmoe {

namespace {

struct Bucket {
    Tensor values;
    Communicator* ranks;
    size_t first_record;  ///< least index of the records in it
};

/// Last record first.
std::vector<Bucket> buckets_of(const ParameterStore& store, const Mesh& mesh, int64_t bytes) {
    struct Piece {
        Tensor values;
        Communicator* ranks;
        size_t record;
    };
    std::vector<Piece> pieces;
    for (size_t i = 0; i < store.records().size(); ++i) {
        const Parameter& p = store.records()[i];
        Communicator& ranks = p.experts && mesh.shape().expert > 1 ? mesh.data() : mesh.replicas();
        if (p.frozen || ranks.size() == 1) continue;
        for (int64_t e = 0; e < p.part_tensors(); ++e) pieces.push_back({store.gradient(p, e), &ranks, i});
    }
    std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.values.data > b.values.data; });
    std::vector<Bucket> buckets;
    for (const Piece& piece : pieces) {
        const int64_t width = size_of(piece.values.dtype);
        char* begin = static_cast<char*>(piece.values.data);
        if (!buckets.empty() && buckets.back().ranks == piece.ranks) {
            Bucket& last = buckets.back();
            const int64_t gap = static_cast<char*>(last.values.data) - (begin + piece.values.bytes());
            const int64_t joined = last.values.bytes() + gap + piece.values.bytes();
            if (gap < 64 && joined <= bytes) {  // the gaps of alignment are zeros
                last.values = Tensor(begin, piece.values.dtype, {joined / width});
                last.first_record = std::min(last.first_record, piece.record);
                continue;
            }
        }
        buckets.push_back({Tensor(begin, piece.values.dtype, {piece.values.elements()}), piece.ranks, piece.record});
    }
    return buckets;
}

}  // namespace

struct GradientSync::State {
    const Mesh& mesh;
    std::vector<Bucket> buckets;
    bool beside;       // a thread reduces beside the backward
    size_t ready = 0;  // buckets that may be reduced
    size_t done = 0;
    bool stop = false;
    std::exception_ptr error;
    std::mutex mutex;
    std::condition_variable changed;
    std::thread thread;

    explicit State(const Mesh& mesh) : mesh(mesh) {}

    void run() {
        omp_set_num_threads(1);  // the cores are the backward's
        Context context;
        std::unique_lock lock(mutex);
        for (;;) {
            changed.wait(lock, [&] { return stop || (done < ready && !error); });
            if (stop) return;
            Bucket& bucket = buckets[done];
            lock.unlock();
            std::exception_ptr failure;
            try {
                bucket.ranks->all_reduce(context, bucket.values);
            } catch (...) {
                failure = std::current_exception();
            }
            lock.lock();
            ++done;
            if (failure) error = failure;
            changed.notify_all();
        }
    }
};

GradientSync::GradientSync(const ParameterStore& store, const Mesh& mesh, int64_t bucket_bytes) : state_(std::make_unique<State>(mesh)) {
    state_->buckets = buckets_of(store, mesh, bucket_bytes);
    state_->beside = store.engine().on_host() && !state_->buckets.empty();
    if (state_->beside) state_->thread = std::thread([this] { state_->run(); });
}

GradientSync::~GradientSync() {
    if (!state_->thread.joinable()) return;
    {
        const std::lock_guard lock(state_->mutex);
        state_->stop = true;
    }
    state_->changed.notify_all();
    state_->thread.join();
}

void GradientSync::done_from(size_t record) {
    if (!state_->beside) return;
    const std::lock_guard lock(state_->mutex);
    while (state_->ready < state_->buckets.size() && state_->buckets[state_->ready].first_record >= record) ++state_->ready;
    state_->changed.notify_all();
}

void GradientSync::finish(Context& context) {
    State& s = *state_;
    if (!s.beside) {
        for (const Bucket& bucket : s.buckets) bucket.ranks->all_reduce(context, bucket.values);
        return;
    }
    done_from(0);
    std::unique_lock lock(s.mutex);
    s.changed.wait(lock, [&] { return s.done == s.buckets.size() || s.error; });
    if (s.error) std::rethrow_exception(s.error);
    s.ready = s.done = 0;
}

const Mesh& GradientSync::mesh() const { return state_->mesh; }

int64_t GradientSync::bytes() const {
    int64_t sum = 0;
    for (const Bucket& bucket : state_->buckets) sum += bucket.values.bytes();
    return sum;
}

}  // namespace flanmoe
