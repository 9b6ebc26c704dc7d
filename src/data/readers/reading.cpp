// Questions over texts: TyDi QA (gold passages and the full format), CondaQA, PubmedQA, SearchQA, StrategyQA.
#include "data/readers/families.hpp"
#include "data/readers/fields.hpp"

#include "data/json_value.hpp"
#include "data/text_files.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace flanmoe {

namespace {

// SQuAD's layout: paragraphs of an article, questions of a paragraph. The language is in front of the id: "finnish-1234-0".
void convert_gold_passages(const DataValue& article, const SourceFile&, Emit& emit) {
    for_each_part(list_field(article, "paragraphs"), "paragraph", emit, [&](const DataValue& paragraph, const std::string& place) {
        for_each_part(list_field(paragraph, "qas"), place + ", question", emit, [&](const DataValue& question, const std::string&) {
            const std::string id = scalar_field(question, "id");
            std::vector<std::string> answers;
            if (question.find("answers"))
                for (const DataValue& answer : list_field(question, "answers")) add_new(answers, text_field(answer, "text"));
            if (answers.empty()) throw RecordProblem{fmt::format("'{}' has no answers", id)};
            DataValue record{DataValue::Object{}};
            record.set("id", id);
            record.set("language", id.substr(0, std::min(id.find('-'), id.size())));
            record.set("title", optional_text(article, "title"));
            record.set("context", text_field(paragraph, "context"));
            record.set("question", text_field(question, "question"));
            record.set("answers", DataValue(answers));
            emit(std::move(record));
        });
    });
}

// The text between two byte offsets of the document; "" if they are -1.
std::string slice(const std::string& text, const DataValue& span) {
    const int64_t begin = integer_field(span, "plaintext_start_byte"), end = integer_field(span, "plaintext_end_byte");
    if (begin < 0 || end < 0) return "";
    if (begin > end || end > static_cast<int64_t>(text.size()))
        throw RecordProblem{fmt::format("points to bytes {} to {} of a document_plaintext of {} bytes", begin, end, text.size())};
    return text.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

void convert_tydiqa(const DataValue& raw, const SourceFile&, Emit& emit) {
    const std::string& text = text_field(raw, "document_plaintext");
    std::vector<std::string> passages, answers, right_passages, verdicts;
    for (const DataValue& candidate : list_field(raw, "passage_answer_candidates")) passages.push_back(slice(text, candidate));
    if (const DataValue* annotations = raw.find("annotations"); annotations && !annotations->nothing()) {
        for (const DataValue& annotation : list_field(raw, "annotations")) {
            if (const std::string answer = slice(text, field(annotation, "minimal_answer")); !answer.empty()) add_new(answers, answer);
            const int64_t index = integer_field(field(annotation, "passage_answer"), "candidate_index");
            if (index >= static_cast<int64_t>(passages.size())) throw RecordProblem{fmt::format("names passage {} of {}", index, passages.size())};
            if (index >= 0) add_new(right_passages, passages[static_cast<size_t>(index)]);
            const std::string& verdict = text_field(annotation, "yes_no_answer");
            if (verdict != "NONE") add_new(verdicts, verdict);
        }
    }
    DataValue record{DataValue::Object{}};
    record.set("id", scalar_field(raw, "example_id"));
    record.set("language", text_field(raw, "language"));
    record.set("title", text_field(raw, "document_title"));
    record.set("question", text_field(raw, "question_text"));
    record.set("document", text);
    record.set("passages", DataValue(passages));
    record.set("answers", DataValue(answers));
    record.set("answer_passages", DataValue(right_passages));
    record.set("verdicts", DataValue(verdicts));
    emit(std::move(record));
}

void convert_condaqa(const DataValue& raw, const SourceFile&, Emit& emit) {
    DataValue record{DataValue::Object{}};
    record.set("context", text_field(raw, "sentence1"));
    record.set("question", text_field(raw, "sentence2"));
    record.set("answer", text_field(raw, "label"));
    record.set("cue", optional_text(raw, "original cue"));
    record.set("passage_id", scalar_field(raw, "PassageID"));
    record.set("edit_id", scalar_field(raw, "PassageEditID"));
    record.set("question_id", scalar_field(raw, "QuestionID"));
    record.set("id", fmt::format("{}-{}-{}", scalar_field(raw, "PassageID"), scalar_field(raw, "PassageEditID"), scalar_field(raw, "QuestionID")));
    emit(std::move(record));
}

void convert_pubmedqa(const DataValue& raw, const SourceFile&, Emit& emit) {
    const std::vector<std::string> contexts = texts_field(raw, "CONTEXTS");
    const std::string& answer = text_field(raw, "final_decision");
    const std::vector<std::string> options = {"yes", "no", "maybe"};
    if (std::find(options.begin(), options.end(), answer) == options.end()) throw RecordProblem{fmt::format("has the final_decision '{}', not yes, no or maybe", answer)};
    DataValue record{DataValue::Object{}};
    record.set("id", text_field(raw, "id"));
    record.set("question", text_field(raw, "QUESTION"));
    record.set("contexts", DataValue(contexts));
    record.set("context", joined(contexts, "\n"));
    record.set("options", DataValue(options));
    record.set("answer", answer);
    record.set("long_answer", optional_text(raw, "LONG_ANSWER"));
    emit(std::move(record));
}

// "<s> snippet </s> <s> ... ||| question ||| answer".
void convert_searchqa_line(const DataValue& raw, const SourceFile&, Emit& emit) {
    const std::vector<std::string> parts = split(text_field(raw, "line"), "|||");
    if (parts.size() != 3) throw RecordProblem{fmt::format("has {} parts between '|||', not snippets, question and answer", parts.size())};
    std::vector<std::string> snippets;
    for (const std::string& part : split(parts[0], "</s>")) {
        const std::string piece = trimmed(part), text = trimmed(piece.starts_with("<s>") ? piece.substr(3) : piece);
        if (!text.empty()) snippets.push_back(text);
    }
    DataValue record{DataValue::Object{}};
    record.set("snippets", DataValue(snippets));
    record.set("context", joined(snippets, "\n"));
    record.set("question", trimmed(parts[1]));
    record.set("answers", DataValue(std::vector<std::string>{trimmed(parts[2])}));
    emit(std::move(record));
}

// Texts of a search result; one without any has null.
void add_snippets(const DataValue& result, std::vector<std::string>& snippets) {
    const char* name = result.find("snippets") ? "snippets" : "snippet";
    const DataValue* found = result.find(name);
    if (!found || found->nothing()) return;
    if (found->text()) return snippets.push_back(*found->text());
    for (const std::string& text : texts_field(result, name)) snippets.push_back(text);
}

// An object with search_results, or MRQA's layout: a header line, then {context, qas [{question, answers}]}.
void convert_searchqa_json(const DataValue& raw, const SourceFile&, Emit& emit) {
    if (raw.find("header") && raw.object()->size() == 1) return emit.header();
    if (raw.find("qas")) {
        for_each_part(list_field(raw, "qas"), "question", emit, [&](const DataValue& question, const std::string&) {
            DataValue record{DataValue::Object{}};
            record.set("snippets", DataValue(std::vector<std::string>{text_field(raw, "context")}));
            record.set("context", text_field(raw, "context"));
            record.set("question", text_field(question, "question"));
            record.set("answers", DataValue(texts_field(question, "answers")));
            emit(std::move(record));
        });
        return;
    }
    std::vector<std::string> snippets;
    for (const DataValue& result : list_field(raw, "search_results")) add_snippets(result, snippets);
    DataValue record{DataValue::Object{}};
    record.set("snippets", DataValue(snippets));
    record.set("context", joined(snippets, "\n"));
    record.set("question", text_field(raw, "question"));
    record.set("answers", DataValue(std::vector<std::string>{text_field(raw, "answer")}));
    emit(std::move(record));
}

void convert_strategyqa(const DataValue& raw, const SourceFile&, Emit& emit) {
    const DataValue& answer = field(raw, "answer");
    if (!answer.boolean()) throw RecordProblem{std::string("has a field 'answer' that is ") + answer.kind() + ", not true or false"};
    const std::vector<std::string> facts = texts_field(raw, "facts");
    DataValue record{DataValue::Object{}};
    record.set("id", text_field(raw, "qid"));
    record.set("question", text_field(raw, "question"));
    record.set("answer", *answer.boolean() ? "yes" : "no");
    record.set("options", DataValue(std::vector<std::string>{"yes", "no"}));
    record.set("facts", DataValue(facts));
    record.set("decomposition", raw.find("decomposition") ? field(raw, "decomposition") : DataValue(DataValue::List{}));
    record.set("rationale", joined(facts, " "));
    record.set("term", optional_text(raw, "term"));
    record.set("description", optional_text(raw, "description"));
    emit(std::move(record));
}

}  // namespace

void add_reading_readers(std::vector<Reader>& rows) {
    rows.push_back({.name = "tydiqa_goldp", .about = "TyDi QA, gold passages: {data [{paragraphs [{context, qas}]}]} (SQuAD's layout)", .layout = Layout::json, .records = "data",
                    .convert = convert_gold_passages, .fields = {"id", "language", "title", "context", "question", "answers"}});
    rows.push_back({.name = "tydiqa", .about = "TyDi QA, full format: documents, passages by byte offset, annotations, one a line", .convert = convert_tydiqa,
                    .fields = {"id", "language", "title", "question", "document", "passages", "answers", "answer_passages", "verdicts"}});
    rows.push_back({.name = "condaqa", .about = "CondaQA: {sentence1, sentence2, label, PassageEditID, ...} a line", .convert = convert_condaqa,
                    .fields = {"id", "context", "question", "answer", "cue", "passage_id", "edit_id", "question_id"}});
    rows.push_back({.name = "pubmedqa", .about = "PubmedQA: a document of {QUESTION, CONTEXTS, final_decision, ...} by PMID", .layout = Layout::json, .convert = convert_pubmedqa,
                    .fields = {"id", "question", "contexts", "context", "options", "answer", "long_answer"}});
    rows.push_back({.name = "searchqa", .about = "SearchQA: snippets ||| question ||| answer, a line each", .layout = Layout::lines, .convert = convert_searchqa_line,
                    .fields = {"snippets", "context", "question", "answers"}});
    rows.push_back({.name = "searchqa_json", .about = "SearchQA as JSON lines: {question, answer, search_results}, or MRQA's {context, qas}", .convert = convert_searchqa_json,
                    .fields = {"snippets", "context", "question", "answers"}});
    rows.push_back({.name = "strategyqa", .about = "StrategyQA: a list of {qid, question, answer, facts, decomposition, ...}", .layout = Layout::json, .convert = convert_strategyqa,
                    .fields = {"id", "question", "answer", "options", "facts", "decomposition", "rationale", "term", "description"}});
}

}  // namespace flanmoe
