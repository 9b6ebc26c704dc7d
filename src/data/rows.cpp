// See the header.
#include "data/rows.hpp"

#include "core/error.hpp"
#include "data/mixture_source.hpp"
#include "data/tasks.hpp"

#include <xxhash.h>

#include <algorithm>

namespace flanmoe {

void Row::clear() {
    for (auto* values : {&encoder_ids, &encoder_segments, &decoder_ids, &decoder_segments, &decoder_targets, &prefix_ends}) values->clear();
    examples = 0;
}

void append_example(Row& row, const Example& example, const DataConfig& config) {
    const int32_t segment = ++row.examples;
    const auto append = [](std::vector<int32_t>& to, const std::vector<int32_t>& from) { to.insert(to.end(), from.begin(), from.end()); };
    const size_t begin = row.decoder_ids.size();
    row.decoder_ids.push_back(static_cast<int32_t>(config.decoder_start_id));
    if (config.encoder_decoder) {
        append(row.encoder_ids, example.inputs);
        row.encoder_segments.resize(row.encoder_ids.size(), segment);
    } else {
        append(row.decoder_ids, example.inputs);
        row.decoder_targets.resize(begin + example.inputs.size(), ignored);
        if (config.bidirectional_prefix && !example.inputs.empty()) row.prefix_ends.resize(row.decoder_ids.size(), static_cast<int32_t>(row.decoder_ids.size()));
    }
    row.decoder_ids.insert(row.decoder_ids.end(), example.targets.begin(), example.targets.end() - 1);
    append(row.decoder_targets, example.targets);
    row.decoder_segments.resize(row.decoder_targets.size(), segment);
    if (config.bidirectional_prefix) row.prefix_ends.resize(row.decoder_targets.size(), 0);
}

bool fits(const Row& row, const Example& example, const DataConfig& config) {
    const auto length = [](const std::vector<int32_t>& values) { return static_cast<int64_t>(values.size()); };
    if (!config.encoder_decoder) return length(row.decoder_ids) + length(example.inputs) + length(example.targets) <= config.decoder_length;
    return length(row.encoder_ids) + length(example.inputs) <= config.encoder_length &&
           length(row.decoder_ids) + length(example.targets) <= config.decoder_length;
}

RowLengths row_lengths(const std::vector<Row>& rows, const DataConfig& config) {
    const int64_t encoder = config.encoder_decoder ? config.encoder_length : 0;
    if (config.packing || config.objective != Objective::instruct) return {encoder, config.decoder_length};
    RowLengths longest;
    for (const Row& row : rows) {
        longest.encoder = std::max(longest.encoder, static_cast<int64_t>(row.encoder_ids.size()));
        longest.decoder = std::max(longest.decoder, static_cast<int64_t>(row.decoder_ids.size()));
    }
    const auto rounded = [&](int64_t length, int64_t most) {
        return std::min(most, (length + config.pad_multiple - 1) / config.pad_multiple * config.pad_multiple);
    };
    return {rounded(longest.encoder, encoder), rounded(longest.decoder, config.decoder_length)};
}

Batch make_batch(const std::vector<Row>& rows, size_t first, size_t count, int64_t encoder_length, int64_t decoder_length, const DataConfig& config) {
    Batch batch;
    batch.rows = static_cast<int64_t>(count);
    batch.encoder_length = encoder_length;
    batch.decoder_length = decoder_length;
    batch.first_row = static_cast<int64_t>(first);
    const auto fill = [&](std::vector<int32_t>& to, std::vector<int32_t> Row::*from, int64_t length, int32_t padding) {
        to.assign(count * static_cast<size_t>(length), padding);
        for (size_t r = 0; r < count; ++r) {
            const std::vector<int32_t>& values = rows[first + r].*from;
            require(static_cast<int64_t>(values.size()) <= length, "rows no longer than the batch");
            std::copy(values.begin(), values.end(), to.begin() + static_cast<std::ptrdiff_t>(r) * length);
        }
    };
    const auto pad = static_cast<int32_t>(config.pad_id);
    fill(batch.encoder_ids, &Row::encoder_ids, encoder_length, pad);
    fill(batch.encoder_segments, &Row::encoder_segments, encoder_length, 0);
    fill(batch.decoder_ids, &Row::decoder_ids, decoder_length, pad);
    fill(batch.decoder_segments, &Row::decoder_segments, decoder_length, 0);
    fill(batch.decoder_targets, &Row::decoder_targets, decoder_length, ignored);
    if (config.bidirectional_prefix) fill(batch.prefix_ends, &Row::prefix_ends, decoder_length, 0);
    return batch;
}

RowStream::RowStream(const std::vector<std::string>& paths, const DataConfig& config, const Tokenizer& tokenizer, bool training)
    : config_(config), packing_(config.packing && config.objective == Objective::instruct) {
    if (!(training ? training_choice(config_) : validation_choice(config_)).path.empty())
        open_tasks(open_mixture(config_, tokenizer, training), training);
    else
        open_paths(paths, tokenizer, training);
    add_settings_to_hash();
}

RowStream::RowStream(const OpenMixture& mixture, const DataConfig& config, bool training) : config_(config), packing_(config.packing) {
    open_tasks(mixture, training);
    add_settings_to_hash();
}

void RowStream::add_settings_to_hash() {
    for (size_t s = 0; s < sources_.size(); ++s) {
        const int64_t values[] = {mixture_->share(s), config_.seed, config_.shuffle, packing_};
        hash_ = XXH3_64bits_withSeed(values, sizeof values, hash_);
    }
}

void RowStream::add(std::shared_ptr<const ExampleSource> source) {
    source_counts_ += source->counts();
    const uint64_t hash = source->hash();
    hash_ = XXH3_64bits_withSeed(&hash, sizeof hash, hash_);
    sources_.push_back(std::move(source));
}

void RowStream::open_paths(const std::vector<std::string>& paths, const Tokenizer& tokenizer, bool training) {
    if (paths.empty()) fail(Exit::usage, "no data is named; set data.{} to at least one path", training ? "train" : "validation");
    std::vector<int64_t> sizes;
    for (const std::vector<std::string>& source : choose(paths, training)) {
        add(open_source(source, config_, tokenizer, training && config_.shuffle));
        sizes.push_back(sources_.back()->size());
    }
    // Validation is shuffled too, so that a fixed number of batches is a fair sample of it.
    mixture_ = std::make_unique<Mixture>(sizes, training ? config_.weights : std::vector<double>{}, training ? config_.cap : 0, config_.seed,
                                         config_.shuffle || !training);
}

// Every task is a source; their shares are the mixture's rates, to a millionth.
void RowStream::open_tasks(const OpenMixture& mixture, bool training) {
    std::vector<int64_t> sizes;
    for (const auto& source : mixture.sources) {
        tasks_.push_back(source->task().task->name);
        read_.push_back({tasks_.back(), source->tokens().counts(), source->counts().unasked});
        sizes.push_back(source->size());
        add(source);
    }
    mixture_ = std::make_unique<Mixture>(sizes, mixture.rates, 0, config_.seed, config_.shuffle || !training, training ? int64_t{1} << 20 : 0);
}

// What each source reads: the paths as they are, or, of instruction data for training, the files of the chosen tasks. An entry that keeps no task gives
// no source, and its weight goes with it.
std::vector<std::vector<std::string>> RowStream::choose(const std::vector<std::string>& paths, bool training) {
    const int64_t count = training && config_.objective == Objective::instruct ? config_.tasks : 0;
    std::vector<TaskFile> tasks;
    if (config_.objective == Objective::instruct) tasks = choose_tasks(find_tasks(paths), count, config_.tasks_seed);
    for (const TaskFile& task : tasks) tasks_.push_back(task.name);
    std::vector<std::vector<std::string>> sources;
    std::vector<double> weights;
    for (size_t entry = 0; entry < paths.size(); ++entry) {
        std::vector<std::string> files;
        if (count == 0) files.push_back(paths[entry]);
        for (const TaskFile& task : tasks)
            if (count > 0 && task.entry == entry) files.push_back(task.path.string());
        if (files.empty()) continue;
        sources.push_back(files);
        if (training && !config_.weights.empty()) weights.push_back(config_.weights[entry]);
    }
    if (training) config_.weights = weights;
    return sources;
}

void RowStream::seek(int64_t position) {
    require(position >= 0, "a place of the stream");
    position_ = position;
    has_pending_ = false;
}

// Makes pending_ the example at position_, passing over slots that are too short.
bool RowStream::fetch(int64_t end) {
    for (int64_t passed = 0; !has_pending_ && position_ != end; ++passed) {
        if (passed > 2 * epoch_size()) fail(Exit::bad_data, "no part of the training data is long enough for an example; give more text");
        const Mixture::Place place = mixture_->at(position_);
        has_pending_ = sources_[place.source]->get(place.pass, place.slot, pending_);
        if (has_pending_) break;
        ++position_;
        counts_.left_out += static_cast<int64_t>(pending_.inputs.size());
    }
    return has_pending_;
}

bool RowStream::next(Row& row, int64_t end) {
    row.clear();
    while (fetch(end) && (row.examples == 0 || (packing_ && fits(row, pending_, config_)))) {
        require(fits(row, pending_, config_), "an example that fits into an empty row");
        append_example(row, pending_, config_);
        counts_.input_tokens += static_cast<int64_t>(pending_.inputs.size());
        counts_.target_tokens += static_cast<int64_t>(pending_.targets.size());
        has_pending_ = false;
        ++position_;
        if (!packing_) break;
    }
    counts_.examples += row.examples;
    counts_.rows += row.examples > 0;
    return row.examples > 0;
}

}  // namespace flanmoe
