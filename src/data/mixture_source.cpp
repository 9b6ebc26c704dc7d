// See the header.
#include "data/mixture_source.hpp"

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "core/random.hpp"

#include <xxhash.h>

#include <algorithm>

namespace flanmoe {

namespace {

uint64_t combine(uint64_t hash, uint64_t value) { return XXH3_64bits_withSeed(&value, sizeof value, hash); }

// What the mixture holds of what is held out: written into `report` ("" = nowhere) before the policy speaks.
Overlaps checked_overlaps(const MixtureFile& file, const std::string& path, const std::string& cache, const std::string& report) {
    Overlaps overlaps = cached_overlaps(file, cache);
    if (!report.empty()) write_file_atomically(report, overlaps.json());
    if (!overlaps.missing.empty())
        warn("{}: {} files of held-out tasks are not there and were not compared, {} among them; get them, or take their tasks out of [held_out]", path, overlaps.missing.size(), overlaps.missing[0]);
    if (overlaps.pairs.empty()) return overlaps;
    const auto worst = std::max_element(overlaps.pairs.begin(), overlaps.pairs.end(),
                                        [](const auto& a, const auto& b) { return std::pair(a.exact, a.ngram) < std::pair(b.exact, b.ngram); });
    const std::string what = fmt::format("{} records of the mixture hold items that are held out, as {} (task {}) does {} of {}", overlaps.found(), worst->record, worst->trained, worst->item,
                                         worst->held_out);
    if (file.held_out.policy == HeldOut::Policy::refuse) fail(Exit::bad_data, "{}; leave those tasks out of {}, or let it drop the records (policy = \"drop\")", what, path);
    warn("{}{}", what, file.held_out.policy == HeldOut::Policy::drop ? "; they are left out" : "; they are trained on (policy = \"warn\")");
    return overlaps;
}

}  // namespace

MixtureSource::MixtureSource(const MixtureTask& task, const DataConfig& config, const Tokenizer& tokenizer, const std::vector<int64_t>& left_out)
    : task_(task), config_(config), tokens_(*task.task, task.split, task.language_tag, tokenizer, config.cache) {
    const size_t ways = tokens_.ways().size();
    for (int64_t r = 0; r < tokens_.records(); ++r) {
        bool asked = false, usable = false, long_inputs = false, long_targets = false;
        for (size_t w = 0; w < ways; ++w) {
            const auto [inputs, targets] = tokens_.lengths(r, w);
            if (targets == 0) continue;
            asked = true;
            const Limits most = limits(targets);
            long_inputs |= inputs > most.inputs, long_targets |= targets > most.targets;
            usable |= fits(r, w);
        }
        counts_.unasked += !asked;
        counts_.dropped += asked && !usable;
        if (!usable) continue;
        if (std::binary_search(left_out.begin(), left_out.end(), r)) {
            ++counts_.held_out;
            continue;
        }
        const bool cuts = config_.truncation != Truncation::drop;
        counts_.truncated_inputs += cuts && long_inputs;
        counts_.truncated_targets += cuts && long_targets;
        counts_.narrowed += !cuts && (long_inputs || long_targets);
        usable_.push_back(r);
    }
    counts_.examples = static_cast<int64_t>(usable_.size());
    counts_.malformed = tokens_.counts().malformed;
    counts_.tokens = tokens_.tokens();
    const std::string& name = task.task->name;
    seed_ = XXH3_64bits_withSeed(name.data(), name.size(), static_cast<uint64_t>(config.seed));
    hash_ = combine(tokens_.hash(), seed_);
    for (double value : {task.few_shot, task.options, task.inversion, static_cast<double>(task.fewest_shots), static_cast<double>(task.most_shots), static_cast<double>(config.encoder_length),
                         static_cast<double>(config.decoder_length), static_cast<double>(config.truncation), static_cast<double>(config.encoder_decoder)})
        hash_ = combine(hash_, static_cast<uint64_t>(value * 1e9));
    for (const TaskTokens::Way& way : tokens_.ways()) hash_ = combine(hash_, way.index * 4 + (way.with_options ? 2u : 0u) + (way.inverted ? 1u : 0u));
    if (!usable_.empty()) hash_ = XXH3_64bits_withSeed(usable_.data(), usable_.size() * sizeof(int64_t), hash_);
}

// Tokens that inputs may have beside so many of the targets, and targets; end marks (and the start mark of decoder-only rows) are counted off.
MixtureSource::Limits MixtureSource::limits(int64_t targets) const {
    const int64_t most = config_.decoder_length - (config_.encoder_decoder ? 1 : 2);
    return {config_.encoder_decoder ? config_.encoder_length - 1 : config_.decoder_length - std::min(targets, most) - 2, most};
}

bool MixtureSource::fits(int64_t record, size_t way) const {
    const auto [inputs, targets] = tokens_.lengths(record, way);
    if (targets == 0) return false;
    const Limits most = limits(targets);
    return config_.truncation != Truncation::drop || (inputs <= most.inputs && targets <= most.targets);
}

// A template, of the inverted ones at their rate; with options at theirs, where that differs. Of what is drawn, the next way that asks the record.
size_t MixtureSource::choose_way(int64_t record, RandomStream& random) const {
    const std::vector<TaskTokens::Way>& ways = tokens_.ways();
    const bool invert = random.uniform() < task_.inversion, show = random.uniform() < task_.options;
    const auto differs = [&](size_t w) {  // there is a way of the same template with the other choice about options
        return (w > 0 && ways[w - 1].index == ways[w].index) || (w + 1 < ways.size() && ways[w + 1].index == ways[w].index);
    };
    for (const bool inverted : {invert, !invert}) {
        std::vector<size_t> fitting;
        for (size_t w = 0; w < ways.size(); ++w)
            if (ways[w].inverted == inverted && (!differs(w) || ways[w].with_options == show) && fits(record, w)) fitting.push_back(w);
        if (!fitting.empty()) return fitting[random.below(fitting.size())];
    }
    for (size_t w = 0; w < ways.size(); ++w)
        if (fits(record, w)) return w;
    require(false, "a record that some template asks");
    return 0;
}

MixtureSource::Draw MixtureSource::draw(int64_t pass, int64_t slot) const {
    RandomStream random({seed_, static_cast<uint32_t>(pass), 0, Purpose::mixture}, static_cast<uint64_t>(slot) << 12);
    Draw d;
    d.record = usable_[static_cast<size_t>(slot)];
    const bool few_shot = random.uniform() < task_.few_shot;
    d.way = choose_way(d.record, random);
    const auto [inputs, targets] = tokens_.lengths(d.record, d.way);
    const Limits most = limits(targets);
    d.cut = inputs > most.inputs || targets > most.targets;
    if (!few_shot) return d;
    const int64_t wanted = task_.fewest_shots + static_cast<int64_t>(random.below(static_cast<uint64_t>(task_.most_shots - task_.fewest_shots + 1)));
    std::vector<int32_t> asked, other;
    tokens_.append_inputs(d.record, d.way, asked);
    // Draws without replacement by rejection: at most a few for each, bounded for tasks of few records.
    for (int64_t tries = 0; tries < 8 * wanted + 32 && static_cast<int64_t>(d.exemplars.size()) < wanted; ++tries) {
        const int64_t r = usable_[random.below(usable_.size())];
        if (r == d.record || std::find(d.exemplars.begin(), d.exemplars.end(), r) != d.exemplars.end()) continue;
        const auto lengths = tokens_.lengths(r, d.way);
        if (lengths.second == 0) continue;
        if (lengths.first == static_cast<int64_t>(asked.size())) {
            other.clear();
            tokens_.append_inputs(r, d.way, other);
            if (other == asked) continue;
        }
        d.exemplars.push_back(r);
    }
    int64_t length = inputs;
    size_t kept = 0;
    for (; kept < d.exemplars.size(); ++kept) {
        const auto more = tokens_.lengths(d.exemplars[d.exemplars.size() - 1 - kept], d.way);
        if (length + more.first + more.second > most.inputs) break;
        length += more.first + more.second;
    }
    d.dropped = d.exemplars.size() - kept;
    return d;
}

bool MixtureSource::get(int64_t pass, int64_t slot, Example& example) const {
    const Draw d = draw(pass, slot);
    example.inputs.clear();
    example.targets.clear();
    for (size_t e = d.dropped; e < d.exemplars.size(); ++e) {
        tokens_.append_inputs(d.exemplars[e], d.way, example.inputs);
        tokens_.append_targets(d.exemplars[e], d.way, example.inputs);
    }
    tokens_.append_inputs(d.record, d.way, example.inputs);
    tokens_.append_targets(d.record, d.way, example.targets);
    const Limits most = limits(static_cast<int64_t>(example.targets.size()));
    if (static_cast<int64_t>(example.targets.size()) > most.targets) example.targets.resize(static_cast<size_t>(most.targets));
    if (static_cast<int64_t>(example.inputs.size()) > most.inputs) {
        if (config_.truncation == Truncation::keep_end)
            example.inputs.erase(example.inputs.begin(), example.inputs.end() - most.inputs);
        else
            example.inputs.resize(static_cast<size_t>(most.inputs));
    }
    example.inputs.push_back(static_cast<int32_t>(config_.eos_id));
    example.targets.push_back(static_cast<int32_t>(config_.eos_id));
    return true;
}

OpenMixture open_mixture(const DataConfig& config, const Tokenizer& tokenizer, bool training) {
    const MixtureChoice choice = training ? training_choice(config) : validation_choice(config);
    const std::string path = choice.path.string();
    OpenMixture open{load_mixture(choice), {}, {}, {}};
    if (!open.file.held_out.tasks.empty()) open.overlaps = checked_overlaps(open.file, path, config.cache, training ? config.held_out_report : "");
    const bool drop = open.file.held_out.policy == HeldOut::Policy::drop && !open.overlaps.records.empty();
    std::vector<int64_t> sizes;
    for (const MixtureTask& task : open.file.tasks) {
        open.sources.push_back(std::make_shared<MixtureSource>(task, config, tokenizer, drop ? open.overlaps.records[open.sources.size()] : std::vector<int64_t>{}));
        const SourceCounts& counts = open.sources.back()->counts();
        sizes.push_back(open.sources.back()->size());
        if (sizes.back() == 0)
            fail(Exit::bad_data, "task {} of {} gives no example ({} records, {} malformed, {} with nothing to ask, {} too long in every way, {} that hold held-out items); leave it out (exclude)", task.task->name, path,
                 open.sources.back()->tokens().records(), counts.malformed, counts.unasked, counts.dropped, counts.held_out);
    }
    open.rates = mixture_rates(open.file, sizes);
    return open;
}

std::vector<TaskExample> mixture_examples(const MixtureChoice& choice, std::vector<TaskReading>* read) {
    std::vector<TaskExample> all;
    for (const MixtureTask& task : load_mixture(choice).tasks) {
        TaskReading reading{task.task->name, {}, 0};
        for (const Record& record : task.task->read(task.split, &reading.counts)) {
            const size_t before = all.size();
            for (size_t t = 0; t < task.task->templates.size() && all.size() == before; ++t)
                if (!task.task->templates[t].inverted)
                    if (auto example = task.task->render(record, t, true)) all.push_back(std::move(*example));
            reading.unasked += all.size() == before;
        }
        if (read) read->push_back(std::move(reading));
    }
    return all;
}

void report_losses(const char* key, const std::vector<TaskReading>& read) {
    for (const TaskReading& task : read) {
        const std::string losses = task.counts.losses();
        if (task.counts.malformed || task.counts.unknown_ids) warn("{}: task {}: {}", key, task.task, losses);
        else if (!losses.empty()) info("{}: task {}: {}", key, task.task, losses);
    }
}

}  // namespace flanmoe
