// JSON: an object a line, or a document. Lines are told from an array by the first character.
#include "core/error.hpp"
#include "data/byte_source.hpp"
#include "data/json_value.hpp"
#include "data/readers/layouts.hpp"

namespace flanmoe {

namespace {

constexpr const char* blanks = " \t\r\n";

void take_elements(const DataValue::List& elements, const SourceFile& file, RawSink& sink) {
    int64_t number = 0;
    for (const DataValue& element : elements) {
        ++number;
        if (element.object())
            sink.take(DataValue(element), file, number, false);
        else
            sink.malformed(file, number, false, std::string("is ") + element.kind() + ", not an object");
    }
}

}  // namespace

void read_json_lines(const std::filesystem::path& path, const ReadOptions& options, RawSink& sink) {
    LineReader reader(path);
    JsonParser parser;
    const SourceFile file{path, {}};
    std::string line, problem;
    while (reader.next(line)) {
        const int64_t number = reader.line_number();
        if (!convert_line(line, options.encoding, number == 1, problem)) {
            sink.malformed(file, number, true, problem);
            continue;
        }
        const size_t first = line.find_first_not_of(blanks);
        if (first == std::string::npos) continue;
        DataValue value;
        if (number == 1 && line[first] == '[') {  // one array in place of lines
            const std::string text = read_text(path, options.encoding);
            problem = parser.parse(text, value);
            if (!problem.empty()) fail(Exit::bad_data, "{} {}; repair the file, or download it again", path.string(), problem);
            take_elements(*value.list(), file, sink);
            return;
        }
        problem = parser.parse(line, value);
        if (problem.empty() && !value.object()) problem = "is not a JSON object";
        if (problem.empty())
            sink.take(std::move(value), file, number, true);
        else
            sink.malformed(file, number, true, problem);
    }
}

void read_json_document(const Reader& reader, const std::filesystem::path& path, const ReadOptions& options, RawSink& sink) {
    const std::string text = read_text(path, options.encoding);
    JsonParser parser;
    DataValue document;
    if (const std::string problem = parser.parse(text, document); !problem.empty())
        fail(Exit::bad_data, "{} {}; repair the file, or download it again", path.string(), problem);
    const std::string& member = options.records.empty() ? reader.records : options.records;
    SourceFile file{path, {}};
    DataValue records = document;
    if (!member.empty()) {
        const DataValue* found = document.find(member);
        if (!found) fail(Exit::bad_data, "{} has no member '{}' with the records; is it a file of the {} format?", path.string(), member, reader.name);
        records = *found;
        document.remove(member);
        file.document = std::move(document);
    }
    if (const DataValue::List* elements = records.list()) return take_elements(*elements, file, sink);
    if (!records.object())
        fail(Exit::bad_data, "{}: the records are {}, not a list or an object; is it a file of the {} format?", path.string(), records.kind(), reader.name);
    int64_t number = 0;
    for (const DataValue::Member& record : *records.object()) {
        ++number;
        DataValue value = record.value;
        if (!value.object()) {
            sink.malformed(file, number, false, std::string("('") + record.name + "') is " + value.kind() + ", not an object");
            continue;
        }
        if (!value.find("id")) value.set("id", record.name);
        sink.take(std::move(value), file, number, false);
    }
}

}  // namespace flanmoe
