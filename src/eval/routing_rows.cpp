#include "eval/routing_rows.hpp"

#include "core/error.hpp"
#include "data/tasks.hpp"

#include <algorithm>
#include <filesystem>

namespace flanmoe {

namespace fs = std::filesystem;

std::vector<int32_t> TracedBatch::tasks_of(const std::vector<int32_t>& segments) const {
    std::vector<int32_t> of_token(segments.size(), -1);
    const size_t length = segments.size() / static_cast<size_t>(batch.rows);
    for (size_t i = 0; i < segments.size(); ++i)
        if (segments[i] > 0) of_token[i] = tasks[i / length].at(static_cast<size_t>(segments[i]) - 1);
    return of_token;
}

bool is_shard_folder(const std::string& path) { return fs::is_directory(path) && fs::exists(fs::path(path) / "manifest.json") && fs::exists(fs::path(path) / "spiece.model"); }

TraceRows::TraceRows(const std::vector<std::string>& paths, const DataConfig& config, const Tokenizer& tokenizer, int64_t limit, const BatchLimits& limits, int64_t group_rows)
    : config_(config), limits_(limits), group_rows_(group_rows) {
    const auto open = [&](const std::string& name, const std::string& path) {
        names_.push_back(name);
        sources_.push_back(open_source({path}, config, tokenizer, false));
        counts_ += sources_.back()->counts();
    };
    if (config.objective == Objective::instruct) {
        for (const TaskFile& task : find_tasks(paths)) open(task.name, task.path.string());
    } else {
        for (const std::string& path : paths) open(path, path);
    }
    std::vector<int64_t> sizes;
    for (const auto& source : sources_) sizes.push_back(limit > 0 ? std::min(limit, source->size()) : source->size());
    const bool mixed = config.packing && config.objective == Objective::instruct;
    mixture_ = std::make_unique<Mixture>(sizes, std::vector<double>{}, 0, config.seed, mixed);
    if (group_rows_ == 0) limits_.rows = group_rows_ = config.batch_rows, limits_.tokens = 0;
}

// Makes pending_ the next example, passing over windows that are too short; false at the end.
bool TraceRows::fetch() {
    while (pending_task_ < 0 && place_ < mixture_->epoch_size()) {
        const Mixture::Place place = mixture_->at(place_++);
        if (sources_[place.source]->get(0, place.slot, pending_)) pending_task_ = static_cast<int32_t>(place.source);
    }
    return pending_task_ >= 0;
}

// Whether a batch of so many rows of this length has no room for another row.
bool TraceRows::full(size_t rows, int64_t length) const {
    const auto count = static_cast<int64_t>(rows);
    if (count == 0 || count % group_rows_ != 0) return false;
    return count + group_rows_ > limits_.rows || (limits_.tokens > 0 && (count + group_rows_) * length > limits_.tokens);
}

bool TraceRows::next(TracedBatch& traced) {
    std::vector<Row> rows;
    traced.tasks.clear();
    const bool packing = config_.packing && config_.objective == Objective::instruct;
    int64_t longest = packing ? config_.encoder_length + (config_.encoder_decoder ? 0 : config_.decoder_length) : 0;
    while (fetch()) {
        if (!(packing && !rows.empty() && fits(rows.back(), pending_, config_))) {
            const auto length = static_cast<int64_t>(pending_.inputs.size() + (config_.encoder_decoder ? 0 : pending_.targets.size()));
            if (full(rows.size(), std::max(longest, length))) break;
            longest = std::max(longest, length);
            rows.emplace_back(), traced.tasks.emplace_back();
        }
        append_example(rows.back(), pending_, config_);
        traced.tasks.back().push_back(pending_task_);
        pending_task_ = -1;
    }
    if (rows.empty()) return false;
    while (static_cast<int64_t>(rows.size()) % group_rows_ != 0) rows.emplace_back(), traced.tasks.emplace_back();
    const RowLengths lengths = row_lengths(rows, config_);
    traced.batch = make_batch(rows, 0, rows.size(), lengths.encoder, lengths.decoder, config_);
    traced.batch.first_row = rows_;
    rows_ += static_cast<int64_t>(rows.size());
    return true;
}

}  // namespace flanmoe
