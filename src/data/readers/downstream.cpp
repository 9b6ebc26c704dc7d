// Sets that models are finetuned on: CxC's captions, and SuperGLUE's MultiRC and ReCoRD, which nest questions in passages.
#include "data/readers/downstream.hpp"
#include "data/readers/families.hpp"
#include "data/readers/fields.hpp"

#include "core/error.hpp"
#include "core/log.hpp"
#include "data/json_value.hpp"
#include "data/readers/layouts.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>

namespace flanmoe {

namespace {

using Captions = std::unordered_map<std::string, std::string>;  // by id; empty if there is no file of them

Captions read_captions(const std::filesystem::path& path) {
    Captions captions;
    if (!std::filesystem::exists(path)) {
        warn("{} is not there, so captions of CxC stay the ids that they are in its files; get it from cocodataset.org (2014 Train/Val annotations)", path.string());
        return captions;
    }
    JsonParser parser;
    DataValue document;
    const std::string problem = parser.parse(read_text(path, Encoding::utf8), document);
    const DataValue* annotations = document.find("annotations");
    if (!problem.empty() || !annotations || !annotations->list()) fail(Exit::bad_data, "{} is not MS-COCO's file of captions ({}); get it again", path.string(), problem.empty() ? "it has no list 'annotations'" : problem);
    try {
        for (const DataValue& annotation : *annotations->list()) captions.emplace(scalar_field(annotation, "id"), trimmed(text_field(annotation, "caption")));
    } catch (const RecordProblem& wrong) {
        fail(Exit::bad_data, "{} holds a caption that {}; get the file again", path.string(), wrong.what);
    }
    return captions;
}

// A text of whole characters, both ends included.
std::string characters(const std::string& text, int64_t first, int64_t last) {
    std::string part;
    int64_t at = -1;
    for (const char c : text) {
        at += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
        if (at >= first && at <= last) part += c;
    }
    if (first < 0 || last < first || at < last) throw RecordProblem{fmt::format("points to characters {} to {} of a passage of {}", first, last, at + 1)};
    return part;
}

const DataValue& passage_of(const DataValue& raw) {
    const DataValue& passage = field(raw, "passage");
    if (!passage.object()) throw RecordProblem{"has a field 'passage' that is no object"};
    return passage;
}

// A passage with questions, each with candidates that are labelled 0 or 1: a record a candidate.
void convert_multirc(const DataValue& raw, const SourceFile&, Emit& emit) {
    const std::string id = scalar_field(raw, "idx");
    const DataValue& passage = passage_of(raw);
    const std::string& text = text_field(passage, "text");
    for_each_part(list_field(passage, "questions"), "question", emit, [&](const DataValue& question, const std::string&) {
        const std::string question_id = id + "-" + scalar_field(question, "idx");
        for_each_part(list_field(question, "answers"), "answer", emit, [&](const DataValue& candidate, const std::string&) {
            const int64_t label = integer_field(candidate, "label");
            if (label != 0 && label != 1) throw RecordProblem{fmt::format("has the label {}, not 0 or 1", label)};
            DataValue record{DataValue::Object{}};
            record.set("id", question_id + "-" + scalar_field(candidate, "idx"));
            record.set("question_id", question_id);
            record.set("context", text);
            record.set("question", text_field(question, "question"));
            record.set("candidate", text_field(candidate, "text"));
            record.set("answer", label == 1 ? "true" : "false");
            emit(std::move(record));
        });
    });
}

// A passage with entities by place, and queries with a placeholder that some of them stand for.
void convert_record(const DataValue& raw, const SourceFile&, Emit& emit) {
    const DataValue& passage = passage_of(raw);
    const std::string& text = text_field(passage, "text");
    std::vector<std::string> entities;
    for (const DataValue& entity : list_field(passage, "entities")) add_new(entities, characters(text, integer_field(entity, "start"), integer_field(entity, "end")));
    for_each_part(list_field(raw, "qas"), "query", emit, [&](const DataValue& query, const std::string&) {
        std::vector<std::string> answers;
        for (const DataValue& answer : list_field(query, "answers")) add_new(answers, text_field(answer, "text"));
        if (answers.empty()) throw RecordProblem{"has no answers"};
        DataValue record{DataValue::Object{}};
        record.set("id", scalar_field(query, "idx"));
        record.set("context", text);
        record.set("query", text_field(query, "query"));
        record.set("entities", DataValue(entities));
        record.set("answers", DataValue(answers));
        emit(std::move(record));
    });
}

}  // namespace

std::string caption_text(const std::filesystem::path& data, const std::string& caption) {
    constexpr std::string_view mark = ":sentid:";
    const size_t at = caption.find(mark);
    if (at == std::string::npos) return caption;
    static std::mutex mutex;
    static std::map<std::string, Captions> known;
    const std::lock_guard lock(mutex);
    const std::filesystem::path path = data.parent_path() / captions_file;
    const std::string key = std::filesystem::absolute(path).string();
    auto found = known.find(key);
    if (found == known.end()) found = known.emplace(key, read_captions(path)).first;
    if (found->second.empty()) return caption;
    const auto text = found->second.find(caption.substr(at + mark.size()));
    if (text == found->second.end()) throw RecordProblem{fmt::format("names the caption '{}', which {} does not have", caption, path.string())};
    return text->second;
}

void add_downstream_readers(std::vector<Reader>& rows) {
    rows.push_back({.name = "multirc", .about = "MultiRC of SuperGLUE: {passage {text, questions [{question, answers [{text, label}]}]}} a line", .convert = convert_multirc,
                    .fields = {"id", "question_id", "context", "question", "candidate", "answer"}});
    rows.push_back({.name = "record", .about = "ReCoRD of SuperGLUE: {passage {text, entities}, qas [{query, answers}]} a line", .convert = convert_record,
                    .fields = {"id", "context", "query", "entities", "answers"}});
}

}  // namespace flanmoe
