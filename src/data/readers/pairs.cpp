// Pairs of sentences with a label or a score: e-SNLI, SICK, CxC, and the GLUE and SuperGLUE tasks.
#include "data/readers/families.hpp"
#include "data/readers/fields.hpp"

#include "core/error.hpp"
#include "data/json_value.hpp"
#include "data/readers/downstream.hpp"
#include "data/readers/layouts.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>

namespace flanmoe {

namespace {

const std::vector<std::string> entailment_labels = {"entailment", "neutral", "contradiction"};

void check_label(const std::string& label, const std::vector<std::string>& labels) {
    if (std::find(labels.begin(), labels.end(), label) == labels.end()) {
        std::string all;
        for (const std::string& one : labels) all += (all.empty() ? "" : ", ") + one;
        throw RecordProblem{fmt::format("has the label '{}', which is none of: {}", label, all)};
    }
}

// Fields are the names of the files: s1.train, s2.train, labels.train, expl_1.train (preproc1_expl_1.dev, ...).
void convert_esnli(const DataValue& raw, const SourceFile&, Emit& emit) {
    DataValue record{DataValue::Object{}};
    std::vector<std::string> explanations;
    for (const DataValue::Member& column : *raw.object()) {
        const std::string text = trimmed(*column.value.text());
        if (column.name.starts_with("s1"))
            record.set("premise", text);
        else if (column.name.starts_with("s2"))
            record.set("hypothesis", text);
        else if (column.name.starts_with("labels"))
            record.set("label", text);
        else if (column.name.find("expl") != std::string::npos)
            explanations.push_back(text);
        else
            throw RecordProblem{fmt::format("comes from a file '{}', which is none of s1, s2, labels, expl", column.name)};
    }
    check_label(text_field(record, "label"), entailment_labels);
    text_field(record, "premise");
    text_field(record, "hypothesis");
    if (explanations.empty()) throw RecordProblem{"has no explanation; name the expl file, too"};
    record.set("rationale", explanations[0]);
    record.set("rationales", DataValue(explanations));
    record.set("options", DataValue(entailment_labels));
    emit(std::move(record));
}

void convert_esnli_csv(const DataValue& raw, const SourceFile&, Emit& emit) {
    DataValue record{DataValue::Object{}};
    record.set("id", optional_text(raw, "pairID"));
    record.set("premise", text_field(raw, "Sentence1"));
    record.set("hypothesis", text_field(raw, "Sentence2"));
    record.set("label", text_field(raw, "gold_label"));
    check_label(text_field(raw, "gold_label"), entailment_labels);
    record.set("rationale", text_field(raw, "Explanation_1"));
    std::vector<std::string> explanations;
    for (const char* name : {"Explanation_1", "Explanation_2", "Explanation_3"})
        if (const std::string text = optional_text(raw, name); !text.empty()) explanations.push_back(text);
    record.set("rationales", DataValue(explanations));
    record.set("options", DataValue(entailment_labels));
    emit(std::move(record));
}

// A number of the range, as it is written.
std::string score_field(const DataValue& raw, const char* name, double low, double high) {
    const std::string text = trimmed(text_field(raw, name));
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end || !(value >= low && value <= high)) throw RecordProblem{fmt::format("has the {} '{}', not a number from {} to {}", name, text, low, high)};
    return text;
}

void convert_sick(const DataValue& raw, const SourceFile&, Emit& emit) {
    DataValue record{DataValue::Object{}};
    record.set("id", text_field(raw, "pair_ID"));
    record.set("premise", text_field(raw, "sentence_A"));
    record.set("hypothesis", text_field(raw, "sentence_B"));
    record.set("score", score_field(raw, "relatedness_score", 1, 5));
    std::string label = trimmed(text_field(raw, "entailment_judgment"));
    std::transform(label.begin(), label.end(), label.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    check_label(label, entailment_labels);
    record.set("label", label);
    record.set("options", DataValue(entailment_labels));
    emit(std::move(record));
}

// Captions are ids of MS-COCO sentences unless the file holds their text.
void convert_cxc(const DataValue& raw, const SourceFile& file, Emit& emit) {
    DataValue record{DataValue::Object{}};
    record.set("caption1", caption_text(file.path, text_field(raw, "caption1")));
    record.set("caption2", caption_text(file.path, text_field(raw, "caption2")));
    record.set("score", score_field(raw, "agg_score", 0, 5));
    record.set("sampling_method", optional_text(raw, "sampling_method"));
    emit(std::move(record));
}

// The labels of the file labels.json beside the data, read once a file.
const std::vector<std::string>& labels_beside(const std::filesystem::path& data) {
    static std::mutex mutex;
    static std::map<std::string, std::vector<std::string>> known;
    const std::lock_guard lock(mutex);
    const std::filesystem::path path = data.parent_path() / labels_file;
    auto [place, fresh] = known.try_emplace(std::filesystem::absolute(path).string());
    if (fresh && std::filesystem::exists(path)) {
        JsonParser parser;
        DataValue value;
        const std::string problem = parser.parse(read_text(path, Encoding::utf8), value);
        if (!problem.empty() || !value.list()) fail(Exit::bad_data, "{} is not a JSON list of labels; repair it", path.string());
        for (const DataValue& label : *value.list()) {
            if (!label.scalar()) fail(Exit::bad_data, "{} holds {}, not only labels; repair it", path.string(), label.kind());
            place->second.push_back(label.as_text());
        }
    }
    return place->second;
}

void convert_glue(const DataValue& raw, const SourceFile& file, Emit& emit) {
    DataValue record = raw;
    const std::string label = scalar_field(raw, "label");
    record.set("sentence", text_field(raw, "sentence"));
    record.set("label", label);
    const std::vector<std::string>& labels = labels_beside(file.path);
    if (!labels.empty()) check_label(label, labels);
    record.set("options", DataValue(labels));
    emit(std::move(record));
}

}  // namespace

void add_pair_readers(std::vector<Reader>& rows) {
    rows.push_back({.name = "e_snli", .about = "e-SNLI: aligned files s1.*, s2.*, labels.*, expl_1.*", .layout = Layout::aligned, .convert = convert_esnli,
                    .fields = {"premise", "hypothesis", "label", "rationale", "rationales", "options"}});
    rows.push_back({.name = "e_snli_csv", .about = "e-SNLI: esnli_*.csv", .layout = Layout::csv, .convert = convert_esnli_csv,
                    .fields = {"id", "premise", "hypothesis", "label", "rationale", "rationales", "options"}});
    rows.push_back({.name = "sick", .about = "SICK: TSV of sentence pairs with relatedness and entailment", .layout = Layout::tsv, .convert = convert_sick,
                    .fields = {"id", "premise", "hypothesis", "score", "label", "options"}});
    rows.push_back({.name = "cxc", .about = "Crisscrossed Captions: CSV of caption pairs with agg_score; captions_val2014.json beside it has their text", .layout = Layout::csv, .convert = convert_cxc,
                    .fields = {"caption1", "caption2", "score", "sampling_method"}});
    rows.push_back({.name = "glue", .about = "GLUE and SuperGLUE as JSON lists of {sentence, label}, labels.json beside them", .layout = Layout::json, .convert = convert_glue,
                    .fields = {"sentence", "label", "options"}, .open = true});
}

}  // namespace flanmoe
