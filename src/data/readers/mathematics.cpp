// Sets with worked solutions: GSM8K, AQuA, SVAMP, ASDiv, MGSM, and the chain-of-thought data of FLAN.
#include "data/readers/families.hpp"
#include "data/readers/fields.hpp"

#include <fmt/format.h>

#include <cmath>

namespace flanmoe {

namespace {

// Without the calculator's marks, "<<48/2=24>>".
std::string without_marks(const std::string& text) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
        const size_t open = text.find("<<", at), close = open == std::string::npos ? open : text.find(">>", open);
        out += text.substr(at, close == std::string::npos ? std::string::npos : open - at);
        if (close == std::string::npos) break;
        at = close + 2;
    }
    return out;
}

// "... \n#### 18": the rationale and the number behind the last mark.
void convert_gsm8k(const DataValue& raw, const SourceFile&, Emit& emit) {
    const std::string& solution = text_field(raw, "answer");
    const size_t mark = solution.rfind("####");
    if (mark == std::string::npos) throw RecordProblem{"has a field 'answer' without '#### ' and the number"};
    DataValue record{DataValue::Object{}};
    record.set("question", text_field(raw, "question"));
    record.set("answer", trimmed(std::string_view(solution).substr(mark + 4)));
    record.set("rationale", trimmed(without_marks(solution.substr(0, mark))));
    record.set("solution", solution);
    emit(std::move(record));
}

void convert_aqua(const DataValue& raw, const SourceFile&, Emit& emit) {
    std::vector<std::string> options, letters;
    for (const std::string& option : texts_field(raw, "options")) {  // "A)32400"
        const size_t bracket = option.find(')');
        if (bracket == std::string::npos || bracket > 2) throw RecordProblem{fmt::format("has the option '{}', which does not begin with a letter and ')'", option)};
        letters.push_back(trimmed(std::string_view(option).substr(0, bracket)));
        options.push_back(trimmed(std::string_view(option).substr(bracket + 1)));
    }
    const std::string& right = text_field(raw, "correct");
    size_t index = 0;
    while (index < letters.size() && letters[index] != right) ++index;
    if (index == letters.size()) throw RecordProblem{fmt::format("has the answer '{}', which is none of its {} options", right, options.size())};
    DataValue record{DataValue::Object{}};
    record.set("question", text_field(raw, "question"));
    set_choices(record, options, letters, index);
    record.set("rationale", optional_text(raw, "rationale"));
    emit(std::move(record));
}

// Body and question as one text; a body without a full stop gets one.
std::string whole_question(const std::string& body, const std::string& question) {
    std::string text = trimmed(body);
    if (!text.empty() && std::string_view(".?!,:;").find(text.back()) == std::string_view::npos) text += '.';
    return text + (text.empty() ? "" : " ") + trimmed(question);
}

void convert_svamp(const DataValue& raw, const SourceFile&, Emit& emit) {
    const DataValue& answer = field(raw, "Answer");
    double number = 0;
    if (const double* real = answer.real())
        number = *real;
    else if (const int64_t* whole = answer.integer())
        number = static_cast<double>(*whole);
    else
        throw RecordProblem{"has a field 'Answer' that is no number"};
    DataValue record{DataValue::Object{}};
    record.set("id", text_field(raw, "ID"));
    record.set("body", text_field(raw, "Body"));
    record.set("asked", text_field(raw, "Question"));
    record.set("question", whole_question(text_field(raw, "Body"), text_field(raw, "Question")));
    record.set("answer", number == std::floor(number) ? fmt::format("{:.0f}", number) : fmt::format("{}", number));
    record.set("equation", optional_text(raw, "Equation"));
    record.set("type", optional_text(raw, "Type"));
    emit(std::move(record));
}

// "9 (apples)": the number and what is counted.
void convert_asdiv(const DataValue& raw, const SourceFile&, Emit& emit) {
    const std::string& full = text_field(raw, "Answer");
    const size_t bracket = full.find(" (");
    DataValue record{DataValue::Object{}};
    record.set("id", text_field(raw, "ID"));
    record.set("body", text_field(raw, "Body"));
    record.set("asked", text_field(raw, "Question"));
    record.set("question", whole_question(text_field(raw, "Body"), text_field(raw, "Question")));
    record.set("answer", trimmed(full.substr(0, bracket)));
    record.set("full_answer", full);
    record.set("unit", bracket == std::string::npos || !full.ends_with(")") ? "" : full.substr(bracket + 2, full.size() - bracket - 3));
    record.set("formula", optional_text(raw, "Formula"));
    record.set("type", optional_text(raw, "Solution-Type"));
    record.set("grade", optional_text(raw, "Grade"));
    emit(std::move(record));
}

// The language is in the file's name: mgsm_de.tsv.
void convert_mgsm(const DataValue& raw, const SourceFile& file, Emit& emit) {
    const std::string stem = file.stem();
    DataValue record{DataValue::Object{}};
    record.set("question", text_field(raw, "question"));
    record.set("answer", trimmed(text_field(raw, "answer")));
    record.set("language", stem.substr(stem.rfind('_') + 1));
    if (record.find("answer")->text()->empty()) throw RecordProblem{"has no answer behind the tab"};
    emit(std::move(record));
}

// Line breaks are written as backslash and n.
std::string with_line_breaks(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == 'n') {
            out += '\n';
            ++i;
        } else {
            out += text[i];
        }
    }
    return out;
}

void convert_flan_cot(const DataValue& raw, const SourceFile&, Emit& emit) {
    DataValue record{DataValue::Object{}};
    for (const char* name : {"question", "answer", "rationale"}) record.set(name, with_line_breaks(text_field(raw, name)));
    if (record.find("answer")->text()->empty()) throw RecordProblem{"has an empty answer"};
    emit(std::move(record));
}

}  // namespace

void add_mathematics_readers(std::vector<Reader>& rows) {
    rows.push_back({.name = "gsm8k", .about = "GSM8K: {question, answer} a line; the answer ends in '#### number'", .convert = convert_gsm8k,
                    .fields = {"question", "answer", "rationale", "solution"}});
    rows.push_back({.name = "aqua", .about = "AQuA: {question, options, rationale, correct} a line", .convert = convert_aqua,
                    .fields = {"question", "options", "letters", "answer", "letter", "rationale"}});
    rows.push_back({.name = "svamp", .about = "SVAMP: a list of {ID, Body, Question, Equation, Answer, Type}", .layout = Layout::json, .convert = convert_svamp,
                    .fields = {"id", "body", "asked", "question", "answer", "equation", "type"}});
    rows.push_back({.name = "asdiv", .about = "ASDiv: XML elements <Problem>", .layout = Layout::xml, .records = "Problem", .convert = convert_asdiv,
                    .fields = {"id", "body", "asked", "question", "answer", "full_answer", "unit", "formula", "type", "grade"}});
    rows.push_back({.name = "mgsm", .about = "MGSM: mgsm_<language>.tsv, question and number", .layout = Layout::tsv, .columns = {"question", "answer"}, .convert = convert_mgsm,
                    .fields = {"question", "answer", "language"}});
    rows.push_back({.name = "flan_cot", .about = "FLAN chain of thought: TSV of question, answer, explanation", .layout = Layout::tsv, .columns = {"question", "answer", "rationale"},
                    .convert = convert_flan_cot, .fields = {"question", "answer", "rationale"}});
}

}  // namespace flanmoe
