#include "model/gradient_sync.hpp"

namespace flanmoe {

GradientSync::GradientSync(const ParameterStore& store, int64_t bucket_bytes) : store_(store) {
    const auto label = [&](const Parameter& p, int64_t tensor) { return p.frozen || store.ranks_of(p).size() == 1 ? std::nullopt : std::optional(label_of(store, p, tensor)); };
    buckets_ = flat_runs(store, bucket_bytes / size_of(store.master_type()), label);
    if (!buckets_.empty()) lane_ = store.engine().make_lane();
}

void GradientSync::sum(Context& context, const FlatRun& bucket) const {
    const Tensor values = store_.gradients(bucket.first, bucket.elements);
    bucket.owner < 0 ? bucket.ranks->all_reduce(context, values) : bucket.ranks->reduce(context, values, bucket.owner);
}

void GradientSync::done_from(size_t record) {
    for (; ready_ < buckets_.size() && buckets_[ready_].first_record >= record; ++ready_)
        last_ = lane_->run([this, &bucket = buckets_[ready_]](Context& context) { sum(context, bucket); });
}

void GradientSync::finish() {
    done_from(0);
    ready_ = 0;
    if (lane_) lane_->wait(last_);
}

}  // namespace flanmoe
