// Multiple choice: MMLU, the layout of CommonsenseQA, ARC and OpenBookQA, BIG-Bench-Hard.
#include "data/readers/families.hpp"
#include "data/readers/fields.hpp"

#include <fmt/format.h>

namespace flanmoe {

namespace {

// Its authors' files have no header and letters as answers; exports have one, and 0 to 3.
bool is_mmlu_header(const std::vector<std::string>& cells) { return !cells.empty() && trimmed(cells.back()) == "answer"; }

void convert_mmlu(const DataValue& raw, const SourceFile& file, Emit& emit) {
    const DataValue::Object& cells = *raw.object();
    const std::string subject = file.stem();
    std::vector<std::string> options, letters;
    for (const DataValue::Member& cell : cells) {
        const std::string& name = cell.name;
        if ((name.size() == 1 && name[0] >= 'A' && name[0] <= 'Z') || name.starts_with("choice")) {
            letters.push_back(letter(options.size()));
            options.push_back(*cell.value.text());
        }
    }
    if (options.size() < 2) throw RecordProblem{"has no columns of choices (A, B, C, D or choice0, ...)"};
    const std::string answer = trimmed(text_field(raw, "answer"));
    size_t right = options.size();
    for (size_t i = 0; i < options.size(); ++i)
        if (answer == letters[i] || answer == std::to_string(i)) right = i;
    if (right == options.size()) throw RecordProblem{fmt::format("has the answer '{}', not one of {} to {} (or 0 to {})", answer, letters.front(), letters.back(), options.size() - 1)};
    DataValue record{DataValue::Object{}};
    record.set("question", text_field(raw, "question"));
    set_choices(record, options, letters, right);
    const size_t end = subject.rfind('_');
    const std::string split = end == std::string::npos ? "" : subject.substr(end + 1);
    record.set("subject", split == "dev" || split == "val" || split == "test" ? subject.substr(0, end) : subject);
    emit(std::move(record));
}

// {id, question {stem, choices [{label, text}]}, answerKey}, or with stem and choices {label [], text []} beside the id.
void convert_science(const DataValue& raw, const SourceFile&, Emit& emit) {
    const DataValue& question = any_field(raw, {"question", "question_stem"});
    const DataValue& holder = question.object() ? question : raw;
    const DataValue& choices = field(holder, "choices");
    std::vector<std::string> options, letters;
    if (choices.list()) {
        for (const DataValue& choice : *choices.list()) {
            letters.push_back(scalar_field(choice, "label"));
            options.push_back(text_field(choice, "text"));
        }
    } else {
        letters = texts_field(choices, "label");
        options = texts_field(choices, "text");
        if (letters.size() != options.size()) throw RecordProblem{fmt::format("has {} labels of {} choices", letters.size(), options.size())};
    }
    const std::string right = scalar_field(raw, "answerKey");
    size_t index = 0;
    while (index < letters.size() && letters[index] != right) ++index;
    if (index == letters.size()) throw RecordProblem{fmt::format("has the answerKey '{}', which is none of its {} choices", right, options.size())};
    DataValue record{DataValue::Object{}};
    record.set("id", raw.find("id") ? scalar_field(raw, "id") : std::string());
    record.set("question", question.object() ? text_field(question, "stem") : question.as_text());
    set_choices(record, options, letters, index);
    record.set("fact", optional_text(raw, "fact1"));
    const std::string concept_inside = question.object() ? optional_text(question, "question_concept") : "";
    record.set("concept", concept_inside.empty() ? optional_text(raw, "question_concept") : concept_inside);
    emit(std::move(record));
}

// The answers that the lines behind "Options:" allow: "(A)" of "(A) text", "text" of "- text".
std::vector<std::string> listed_options(const std::string& input) {
    const size_t at = input.rfind("Options:\n");
    std::vector<std::string> options;
    for (size_t begin = at == std::string::npos ? input.size() : at + 9; begin < input.size();) {
        const size_t end = std::min(input.find('\n', begin), input.size());
        const std::string line = trimmed(std::string_view(input).substr(begin, end - begin));
        if (line.starts_with("- "))
            options.push_back(line.substr(2));
        else if (line.starts_with("(") && line.find(')') != std::string::npos)
            options.push_back(line.substr(0, line.find(')') + 1));
        begin = end + 1;
    }
    return options;
}

void convert_bbh(const DataValue& raw, const SourceFile& file, Emit& emit) {
    DataValue record{DataValue::Object{}};
    record.set("input", text_field(raw, "input"));
    record.set("target", text_field(raw, "target"));
    record.set("task", file.stem());
    record.set("options", DataValue(listed_options(text_field(raw, "input"))));
    emit(std::move(record));
}

}  // namespace

void add_choice_readers(std::vector<Reader>& rows) {
    const std::vector<std::string> choice = {"options", "letters", "answer", "letter"};
    const auto with = [&](std::vector<std::string> fields) {
        fields.insert(fields.end(), choice.begin(), choice.end());
        return fields;
    };
    rows.push_back({.name = "mmlu", .about = "MMLU: CSV of question, choices, answer, with or without header; the subject is the file's name", .layout = Layout::csv,
                    .columns = {"question", "A", "B", "C", "D", "answer"}, .is_header = is_mmlu_header, .convert = convert_mmlu, .fields = with({"question", "subject"})});
    for (const auto& [name, about] : {std::pair{"commonsenseqa", "CommonsenseQA"}, {"arc", "ARC, easy and challenge"}, {"openbookqa", "OpenBookQA"}})
        rows.push_back({.name = name, .about = std::string(about) + ": {id, question {stem, choices}, answerKey} a line", .convert = convert_science,
                        .fields = with({"id", "question", "fact", "concept"})});
    rows.push_back({.name = "bbh", .about = "BIG-Bench-Hard: {examples [{input, target}]} a document; prompts: readers/bbh_prompt.hpp", .layout = Layout::json, .records = "examples",
                    .convert = convert_bbh, .fields = {"input", "target", "task", "options"}});
}

}  // namespace flanmoe
