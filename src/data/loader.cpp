// One background thread makes steps in order into a bounded queue; each step carries the state that follows it, so that the queue's depth shows in
// nothing. An error in the thread is kept and thrown by next().
#include "data/loader.hpp"

#include "core/error.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

namespace flanmoe {

std::string LoaderState::to_json() const {
    return nlohmann::ordered_json{{"epoch", epoch},
                                  {"position", position},
                                  {"steps", steps},
                                  {"rows", counts.rows},
                                  {"examples", counts.examples},
                                  {"input_tokens", counts.input_tokens},
                                  {"target_tokens", counts.target_tokens},
                                  {"left_out", counts.left_out},
                                  {"data_hash", fmt::format("{:016x}", data_hash)}}
        .dump();
}

LoaderState LoaderState::from_json(const std::string& text) {
    LoaderState state;
    try {
        const auto json = nlohmann::json::parse(text);
        const std::pair<const char*, int64_t*> fields[] = {{"epoch", &state.epoch},
                                                           {"position", &state.position},
                                                           {"steps", &state.steps},
                                                           {"rows", &state.counts.rows},
                                                           {"examples", &state.counts.examples},
                                                           {"input_tokens", &state.counts.input_tokens},
                                                           {"target_tokens", &state.counts.target_tokens},
                                                           {"left_out", &state.counts.left_out}};
        for (const auto& [name, value] : fields) {
            *value = json.at(name).get<int64_t>();
            if (*value < 0) throw std::runtime_error(std::string(name) + " is negative");
        }
        state.data_hash = std::stoull(json.at("data_hash").get<std::string>(), nullptr, 16);
    } catch (const std::exception& error) {
        fail(Exit::bad_checkpoint, "the saved data position cannot be read ({}); resume from an older checkpoint", error.what());
    }
    return state;
}

std::vector<Share::Piece> Share::pieces(int64_t rows, int64_t micro_batch_rows) const {
    require(group_rows > 0 && rows % group_rows == 0 && micro_batch_rows % group_rows == 0, "whole groups in a step and in a micro-batch");
    const int64_t groups = rows / group_rows, begin = groups * index / count, mine = groups * (index + 1) / count - begin;
    const int64_t most = (groups + count - 1) / count, in_one = micro_batch_rows / group_rows, number = (most + in_one - 1) / in_one;
    std::vector<Piece> all;
    for (int64_t i = 0; i < number; ++i) {
        const int64_t first = begin + mine * i / number, end = begin + mine * (i + 1) / number;
        all.push_back({first * group_rows, (end - first) * group_rows});
    }
    return all;
}

int64_t Share::batch_rows(int64_t rows, int64_t micro_batch_rows, size_t i) const {
    int64_t most = std::max(group_rows, pieces(rows, micro_batch_rows)[i].rows);
    for (int r = 0; equal && r < count; ++r) most = std::max(most, Share{r, count, group_rows}.pieces(rows, micro_batch_rows)[i].rows);
    return most;
}

namespace {

/// Micro-batches of the pieces. Rows of padding stand behind those of a piece.
StepBatch cut(const std::vector<Row>& rows, const Share& share, int64_t micro_batch_rows, const DataConfig& config) {
    const RowLengths lengths = row_lengths(rows, config);
    const auto all = static_cast<int64_t>(rows.size());
    StepBatch step;
    for (const Share::Piece& piece : share.pieces(all, micro_batch_rows)) {
        std::vector<Row> mine(rows.begin() + piece.first, rows.begin() + piece.first + piece.rows);
        mine.resize(static_cast<size_t>(share.batch_rows(all, micro_batch_rows, step.size())));
        step.push_back(make_batch(mine, 0, mine.size(), lengths.encoder, lengths.decoder, config));
        step.back().first_row = piece.first;
    }
    return step;
}

}  // namespace

struct Loader::State {
    struct Item {
        StepBatch step;
        LoaderState after;
    };

    DataConfig config;
    std::shared_ptr<const Tokenizer> tokenizer;
    Share share;
    std::unique_ptr<RowStream> stream;  // used by the background thread while it runs
    LoaderState making, given;          // behind the last step made; behind the last one returned
    std::deque<Item> queue;
    std::exception_ptr error;
    std::mutex mutex;
    std::condition_variable changed;
    std::thread thread;
    bool stop = false;

    Item make_step() {
        std::vector<Row> rows(static_cast<size_t>(config.batch_rows));
        for (Row& row : rows) stream->next(row);
        Item item{cut(rows, share, config.micro_batch_rows, config), {}};
        making.epoch = stream->position() / stream->epoch_size();
        making.position = stream->position() % stream->epoch_size();
        ++making.steps;
        making.counts = stream->counts();
        item.after = making;
        return item;
    }

    void run() {
        for (;;) {
            {
                std::unique_lock lock(mutex);
                changed.wait(lock, [&] { return stop || static_cast<int64_t>(queue.size()) < config.prefetch; });
                if (stop) return;
            }
            try {
                Item item = make_step();
                std::lock_guard lock(mutex);
                queue.push_back(std::move(item));
            } catch (...) {
                std::lock_guard lock(mutex);
                error = std::current_exception();
                stop = true;
            }
            changed.notify_all();
        }
    }

    void halt() {
        if (!thread.joinable()) return;
        {
            std::lock_guard lock(mutex);
            stop = true;
        }
        changed.notify_all();
        thread.join();
    }
};

Loader::Loader(const DataConfig& config, std::shared_ptr<const Tokenizer> tokenizer, Share share) : state_(std::make_unique<State>()) {
    State& s = *state_;
    s.share = share;
    s.config = resolve_data_config(config, *tokenizer);
    s.tokenizer = std::move(tokenizer);
    s.stream = std::make_unique<RowStream>(s.config.train, s.config, *s.tokenizer, true);
    s.making.data_hash = s.given.data_hash = s.stream->hash();
}

Loader::~Loader() { state_->halt(); }

StepBatch Loader::next() {
    State& s = *state_;
    State::Item item;
    if (s.config.prefetch == 0) {
        item = s.make_step();
    } else {
        if (!s.thread.joinable()) s.thread = std::thread([&s] { s.run(); });
        std::unique_lock lock(s.mutex);
        s.changed.wait(lock, [&] { return !s.queue.empty() || s.error; });
        if (s.queue.empty()) std::rethrow_exception(s.error);
        item = std::move(s.queue.front());
        s.queue.pop_front();
    }
    s.changed.notify_all();
    s.given = item.after;
    return std::move(item.step);
}

LoaderState Loader::state() const { return state_->given; }

void Loader::restore(const LoaderState& state) {
    State& s = *state_;
    if (state.data_hash != s.stream->hash() || state.position >= s.stream->epoch_size())
        fail(Exit::usage,
             "the saved data position belongs to other data or data settings; restore them, or start a new run directory from the checkpoint's "
             "weights");
    s.halt();
    s.stop = false;
    s.queue.clear();
    s.error = nullptr;
    s.making = s.given = state;
    s.stream->seek(state.epoch * s.stream->epoch_size() + state.position);
    s.stream->counts() = state.counts;
}

DataStatistics Loader::statistics() const {
    const State& s = *state_;
    const int64_t epoch_size = s.stream->epoch_size();
    return {s.given.counts, s.stream->source_counts(),
            static_cast<double>(s.given.epoch) + static_cast<double>(s.given.position) / static_cast<double>(epoch_size), epoch_size,
            s.stream->tasks(), s.stream->read()};
}

const DataConfig& Loader::config() const { return state_->config; }

std::vector<Batch> validation_batches(const DataConfig& config, const Tokenizer& tokenizer, DataStatistics* statistics, const Share& share) {
    const DataConfig resolved = resolve_data_config(config, tokenizer);
    RowStream stream(resolved.validation, resolved, tokenizer, false);
    std::vector<Batch> batches;
    for (bool more = true; more && static_cast<int64_t>(batches.size()) < resolved.validation_batches;) {
        std::vector<Row> rows;
        while (static_cast<int64_t>(rows.size()) < resolved.validation_rows) {
            Row row;
            more = stream.next(row, stream.epoch_size());
            if (!more) break;
            rows.push_back(std::move(row));
        }
        if (rows.empty()) break;
        const auto all = static_cast<int64_t>(rows.size());
        for (Batch& batch : cut(rows, {share.index, share.count, 1, share.equal}, all, resolved)) batches.push_back(std::move(batch));
    }
    if (batches.empty() && resolved.validation_batches > 0)
        fail(Exit::bad_data, "no part of the validation data is long enough for an example; give more text");
    if (statistics) *statistics = {stream.counts(), stream.source_counts(), 1.0, stream.epoch_size(), stream.tasks(), stream.read()};
    return batches;
}

}  // namespace flanmoe
