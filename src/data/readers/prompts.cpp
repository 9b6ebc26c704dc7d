// Collections of tasks that come with their instructions: P3/T0, the FLAN collection, Natural Instructions, self-instruct, instruction induction.
#include "data/readers/families.hpp"
#include "data/readers/fields.hpp"

#include "data/text_files.hpp"

#include <fmt/format.h>

namespace flanmoe {

namespace {

void remove_end(std::string& text, std::string_view end) {
    if (text.ends_with(end)) text.resize(text.size() - end.size());
}

// inputs, targets; "<|endoftext|>", which ends the completions of one export of T0, is no part of them. Other fields stay as they are.
void convert_prompt(const DataValue& raw, const SourceFile&, Emit& emit) {
    DataValue record = raw;
    const DataValue& inputs = any_field(raw, {"inputs", "prompt", "inputs_pretokenized"});
    if (!inputs.text()) throw RecordProblem{std::string("has inputs that are ") + inputs.kind() + ", not a text"};
    std::vector<std::string> targets = accepted_field(raw, {"targets", "completion", "targets_pretokenized"});
    for (std::string& target : targets) remove_end(target, "<|endoftext|>");
    for (const char* name : {"prompt", "inputs_pretokenized", "completion", "targets_pretokenized"}) record.remove(name);
    record.set("inputs", inputs);
    record.set("targets", DataValue(targets));
    if (const DataValue* choices = raw.find("answer_choices"); choices && !choices->nothing())
        if (const std::vector<std::string> options = texts_field(raw, "answer_choices"); !options.empty()) record.set("options", DataValue(options));
    emit(std::move(record));
}

// A field of the document as a text: a list of texts is joined by line breaks; "-" stands for nothing (v1).
std::string document_text(const DataValue& document, const std::string& name) {
    const DataValue* value = document.find(name);
    if (!value) return "";
    const std::string text = value->list() ? trimmed(joined(texts_field(document, name), "\n")) : trimmed(optional_text(document, name));
    return text == "-" ? "" : text;
}

DataValue document_list(const DataValue& document, const std::string& name) {
    const DataValue* value = document.find(name);
    if (!value || value->nothing()) return DataValue(DataValue::List{});
    return value->list() ? *value : DataValue(DataValue::List{*value});
}

bool dash(const DataValue& value) { return value.text() && trimmed(*value.text()) == "-"; }

DataValue worked_examples(const DataValue& examples, const char* name) {
    DataValue::List list;
    const DataValue* found = examples.find(name);
    if (!found || found->nothing() || dash(*found)) return DataValue(std::move(list));
    for (const DataValue& example : list_field(examples, name)) {
        if (dash(example)) continue;  // v1's way to write that there is none
        if (!example.object()) throw RecordProblem{fmt::format("belongs to a document whose '{}' hold {}, not only objects", name, example.kind())};
        DataValue clean = example;
        if (const DataValue* reason = clean.find("reason")) {  // v1's name of it
            clean.set("explanation", *reason);
            clean.remove("reason");
        }
        if (const DataValue* output = clean.find("output"); output && output->list() && !output->list()->empty()) {
            const DataValue first = output->list()->front();
            clean.set("output", first);
        }
        list.push_back(std::move(clean));
    }
    return DataValue(std::move(list));
}

void convert_natural_instructions(const DataValue& raw, const SourceFile& file, Emit& emit) {
    const DataValue& d = file.document;
    const bool v1 = d.find("Title") || d.find("Things to Avoid");
    DataValue record{DataValue::Object{}};
    record.set("id", raw.find("id") ? scalar_field(raw, "id") : std::string());
    record.set("input", text_field(raw, "input"));
    record.set("output", DataValue(accepted_field(raw, {"output"})));
    record.set("definition", document_text(d, "Definition"));
    record.set("task", file.stem());
    for (const auto& [name, member] : {std::pair{"categories", "Categories"}, {"source", "Source"}, {"domains", "Domains"}, {"reasoning", "Reasoning"},
                                       {"input_language", "Input_language"}, {"output_language", "Output_language"}})
        record.set(name, document_list(d, member));
    for (const auto& [name, member] : {std::pair{"title", "Title"}, {"prompt", "Prompt"}, {"things_to_avoid", "Things to Avoid"}, {"emphasis", "Emphasis & Caution"}})
        record.set(name, document_text(d, member));
    const DataValue* examples = v1 ? d.find("Examples") : &d;
    const DataValue none;
    record.set("positive_examples", worked_examples(examples ? *examples : none, "Positive Examples"));
    record.set("negative_examples", worked_examples(examples ? *examples : none, "Negative Examples"));
    emit(std::move(record));
}

void convert_self_instruct(const DataValue& raw, const SourceFile&, Emit& emit) {
    for_each_part(list_field(raw, "instances"), "instance", emit, [&](const DataValue& instance, const std::string&) {
        DataValue record = raw;
        record.remove("instances");
        record.set("instruction", text_field(raw, "instruction"));
        record.set("input", text_field(instance, "input"));
        record.set("output", text_field(instance, "output"));
        emit(std::move(record));
    });
}

// Every task has fields of its own (input, output; cause, effect; concept, items; ...); where there is an output, `answers` are it and the other accepted ones.
void convert_induction(const DataValue& raw, const SourceFile& file, Emit& emit) {
    DataValue record = raw;
    record.set("task", file.stem());
    if (raw.find("output")) {
        std::vector<std::string> answers = {scalar_field(raw, "output")};
        for (const char* more : {"possible_translations", "possible_outputs", "all_outputs"})
            if (raw.find(more))
                for (const std::string& text : texts_field(raw, more))
                    if (text != answers[0]) answers.push_back(text);
        record.set("answers", DataValue(answers));
    }
    emit(std::move(record));
}

}  // namespace

void add_prompt_readers(std::vector<Reader>& rows) {
    rows.push_back({.name = "p3", .about = "P3 / T0: {prompt, completion} or {inputs, targets} or *_pretokenized a line", .convert = convert_prompt, .fields = {"inputs", "targets"}, .open = true});
    rows.push_back({.name = "flan", .about = "FLAN collection: {inputs, targets, task_source, task_name, template_type} a line", .convert = convert_prompt, .fields = {"inputs", "targets"}, .open = true});
    rows.push_back({.name = "natural_instructions", .about = "Natural Instructions v2 and v1: one JSON document a task", .layout = Layout::json, .records = "Instances",
                    .convert = convert_natural_instructions,
                    .fields = {"id", "input", "output", "definition", "task", "categories", "source", "domains", "reasoning", "input_language", "output_language", "title", "prompt",
                               "things_to_avoid", "emphasis", "positive_examples", "negative_examples"}});
    rows.push_back({.name = "self_instruct", .about = "self-instruct: {instruction, instances[{input, output}]} a line", .convert = convert_self_instruct,
                    .fields = {"instruction", "input", "output"}, .open = true});
    rows.push_back({.name = "instruction_induction", .about = "instruction induction: {metadata, examples{id: {...}}} a document", .layout = Layout::json, .records = "examples",
                    .convert = convert_induction});
}

}  // namespace flanmoe
