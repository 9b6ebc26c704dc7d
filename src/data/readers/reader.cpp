// Reading files with a reader of the table: layout, conversion, policy, counts.
#include "data/readers/reader.hpp"

#include "core/error.hpp"
#include "core/nearest.hpp"
#include "data/byte_source.hpp"
#include "data/readers/layouts.hpp"
#include "data/text_files.hpp"

namespace flanmoe {

namespace {

constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";

std::string place_of(const std::string& file, int64_t number, bool by_line) {
    return by_line ? fmt::format("{}:{}", file, number) : fmt::format("{}, record {}", file, number);
}

class Converter : public RawSink, private Emit {
public:
    Converter(const Reader& reader, const ReadOptions& options, const std::function<void(Record&&)>& take)
        : reader_(reader), options_(options), take_(take) {}

    void take(DataValue&& raw, const SourceFile& file, int64_t number, bool by_line) override {
        file_ = file.path.string(), number_ = number, by_line_ = by_line;
        try {
            if (reader_.convert)
                reader_.convert(raw, file, *this);
            else
                (*this)(std::move(raw));
        } catch (const RecordProblem& problem) {
            malformed(file, number, by_line, problem.what);
        }
    }
    void malformed(const SourceFile& file, int64_t number, bool by_line, const std::string& problem) override {
        const std::string sentence = place_of(file.path.string(), number, by_line) + " " + problem;
        if (options_.malformed == MalformedPolicy::fail)
            fail(Exit::bad_data, "{}; repair it, read the file with another reader than {}, or skip such records (malformed = \"skip\")", sentence, reader_.name);
        counts.add_malformed(sentence);
    }

    ReadCounts counts;

private:
    void operator()(DataValue&& fields) override {
        ++counts.records;
        take_({std::move(fields), file_, number_, by_line_});
    }
    void malformed(const std::string& problem) override { malformed({file_, {}}, number_, by_line_, problem); }
    void header() override { ++counts.headers; }

    const Reader& reader_;
    const ReadOptions& options_;
    const std::function<void(Record&&)>& take_;
    std::string file_;  // of the raw record that is converted
    int64_t number_ = 0;
    bool by_line_ = false;
};

}  // namespace

void ReadCounts::add_malformed(const std::string& problem) {
    ++malformed;
    if (problems.size() < most_named) problems.push_back(problem);
}

std::string ReadCounts::losses() const {
    std::string text;
    const auto add = [&](int64_t count, const std::string& what) {
        if (count > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, what);
    };
    add(malformed, problems.empty() ? "malformed, skipped" : fmt::format("malformed, skipped (malformed = \"skip\"; the first: {})", problems.front()));
    add(not_chosen, "not chosen (by the task's only, except and portion)");
    add(unknown_ids, fmt::format("ids of its lists unknown{}", problems.empty() ? "" : fmt::format(" ({})", problems.back())));
    return text;
}

std::string Record::place() const { return place_of(file, number, by_line); }

std::string SourceFile::stem() const {
    std::string name = path.filename().string();
    for (const char* extension : {".gz", ".zst", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".xml"})
        if (name.ends_with(extension) && name.size() > std::string_view(extension).size()) name.resize(name.size() - std::string_view(extension).size());
    return name;
}

std::string read_text(const std::filesystem::path& path, Encoding encoding) {
    ByteSource source(path);
    std::string bytes = read_all(source);
    int64_t invalid = -1;
    std::string text = to_utf8(bytes, encoding, invalid);
    if (invalid >= 0)
        fail(Exit::bad_data, "{} is not valid {} at byte {}; name the encoding of the file (latin-1, cp1252), or convert it to UTF-8", path.string(),
             encoding == Encoding::utf8 ? "UTF-8" : "cp1252", invalid);
    if (text.starts_with(byte_order_mark)) text.erase(0, byte_order_mark.size());
    return text;
}

bool convert_line(std::string& line, Encoding encoding, bool first, std::string& problem) {
    int64_t invalid = -1;
    if (encoding == Encoding::utf8) {
        invalid = find_invalid_utf8(line);
    } else {
        std::string text = to_utf8(line, encoding, invalid);
        line = std::move(text);
    }
    if (invalid >= 0) {
        problem = fmt::format("is not valid {} at byte {} of the line (name the file's encoding)", encoding == Encoding::utf8 ? "UTF-8" : "cp1252", invalid);
        return false;
    }
    if (first && line.starts_with(byte_order_mark)) line.erase(0, byte_order_mark.size());
    return true;
}

const Reader& find_reader(const std::string& name) {
    std::vector<std::string> names;
    for (const Reader& reader : readers()) {
        if (reader.name == name) return reader;
        names.push_back(reader.name);
    }
    fail(Exit::usage, "there is no reader '{}'{}; there are: {}", name, suggestion(name, names), joined(names, ", "));
}

ReadCounts read_records(const Reader& reader, const std::vector<std::filesystem::path>& files, const ReadOptions& options,
                        const std::function<void(Record&&)>& take) {
    Converter converter(reader, options, take);
    if (reader.layout == Layout::aligned) {
        read_aligned(files, options, converter);
        return converter.counts;
    }
    for (const std::filesystem::path& path : files) {
        switch (reader.layout) {
            case Layout::json_lines: read_json_lines(path, options, converter); break;
            case Layout::json: read_json_document(reader, path, options, converter); break;
            case Layout::csv:
            case Layout::tsv: read_delimited(reader, path, options, converter); break;
            case Layout::lines: read_lines(path, options, converter); break;
            case Layout::xml: read_xml(reader, path, options, converter); break;
            case Layout::aligned: break;
        }
    }
    return converter.counts;
}

}  // namespace flanmoe
