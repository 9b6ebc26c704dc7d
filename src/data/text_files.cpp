// One file is open at a time. Whole-file documents are read at once; the other kinds come from lines.
#include "data/text_files.hpp"

#include "core/error.hpp"
#include "data/json_value.hpp"
#include "data/readers/fields.hpp"

#include <algorithm>
#include <optional>

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos; }

// The name without an extension that only says how the file is compressed.
fs::path uncompressed_name(const fs::path& path) {
    const std::string extension = path.extension().string();
    return extension == ".gz" || extension == ".zst" ? path.stem() : path.filename();
}

void collect_folder(const fs::path& folder, const std::vector<std::string>& extensions, std::vector<InputFile>& files) {
    std::vector<InputFile> found;
    std::error_code error;
    for (fs::recursive_directory_iterator it(folder, fs::directory_options::follow_directory_symlink, error), end; !error && it != end; it.increment(error)) {
        if (it->path().filename().string().starts_with('.')) {
            if (it->is_directory()) it.disable_recursion_pending();
            continue;
        }
        if (it->is_directory()) continue;
        if (!it->is_regular_file())
            fail(Exit::missing_input, "{} is {}; remove it, or name the files that are meant", it->path().string(), it->is_symlink() ? "a link that leads to no file" : "neither a file nor a folder");
        const std::string extension = uncompressed_name(it->path()).extension().string();
        if (extensions.empty() || std::find(extensions.begin(), extensions.end(), extension) != extensions.end())
            found.push_back({it->path(), static_cast<int64_t>(it->file_size())});
    }
    if (error) fail(Exit::missing_input, "cannot read folder {}: {}; check its permissions", folder.string(), error.message());
    if (found.empty()) {
        fail(Exit::bad_data, "folder {} holds no files{}{}; name a folder with data, or the files themselves", folder.string(),
             extensions.empty() ? "" : " ending in ", joined(extensions, " or "));
    }
    std::sort(found.begin(), found.end(), [](const InputFile& a, const InputFile& b) { return a.path.native() < b.path.native(); });
    files.insert(files.end(), found.begin(), found.end());
}

// The text of a line: that of all fields which it has, one at least.
std::string text_of(const std::string& line, JsonParser& json, const std::vector<std::string>& keys) {
    DataValue record;
    if (const std::string problem = json.parse(line, record); !problem.empty()) throw RecordProblem{problem};
    if (!record.object()) throw RecordProblem{"is not a JSON object"};
    name_of_field(record, keys);
    std::string document;
    for (const std::string& key : keys) {
        const DataValue* value = record.find(key);
        if (!value || value->nothing()) continue;
        for (const std::string& text : value->list() ? texts_field(record, key) : std::vector<std::string>{text_field(record, key)}) document += (document.empty() ? "" : "\n") + text;
    }
    return document;
}

}  // namespace

std::string joined(const std::vector<std::string>& parts, std::string_view between) {
    std::string text;
    for (const std::string& part : parts) text.append(text.empty() ? "" : between).append(part);
    return text;
}

Boundaries parse_boundaries(std::string_view name) {
    if (name == "file") return Boundaries::file;
    if (name == "blank-line") return Boundaries::blank_line;
    if (name == "line") return Boundaries::line;
    fail(Exit::usage, "unknown document boundary '{}'; choose file, blank-line or line", name);
}

bool is_jsonl(const fs::path& path) { return uncompressed_name(path).extension() == ".jsonl"; }

std::vector<InputFile> find_input_files(const std::vector<std::string>& inputs, const std::vector<std::string>& extensions) {
    if (inputs.empty()) fail(Exit::usage, "no input is named; give at least one file or folder");
    std::vector<InputFile> files;
    for (const std::string& input : inputs) {
        std::error_code error;
        const fs::file_status status = fs::status(input, error);
        if (!fs::exists(status)) fail(Exit::missing_input, "input {} does not exist; check the path", input);
        if (fs::is_directory(status)) {
            collect_folder(input, extensions, files);
        } else {
            const auto bytes = fs::file_size(input, error);
            files.push_back({input, error ? 0 : static_cast<int64_t>(bytes)});
        }
    }
    return files;
}

struct DocumentReader::OpenFile {
    explicit OpenFile(const fs::path& path) : path(path) {}
    fs::path path;
    std::optional<LineReader> lines;
    std::unique_ptr<ByteSource> whole;
    bool ended = false;
    JsonParser json;

    int64_t consumed() const { return lines ? lines->consumed() : whole ? whole->consumed() : 0; }
};

DocumentReader::DocumentReader(std::vector<InputFile> files, TextOptions options, size_t first_file)
    : files_(std::move(files)), options_(std::move(options)), file_(first_file) {
    for (size_t i = 0; i < files_.size(); ++i) {
        total_ += files_[i].bytes;
        if (i < first_file) done_bytes_ += files_[i].bytes;
    }
}

DocumentReader::~DocumentReader() = default;

int64_t DocumentReader::consumed() const { return done_bytes_ + (open_ ? open_->consumed() : 0); }

bool DocumentReader::next(std::string& document) {
    for (; file_ < files_.size(); done_bytes_ += files_[file_].bytes, ++file_) {
        if (!open_) {
            open_ = std::make_unique<OpenFile>(files_[file_].path);
            documents_of_file_ = 0;
        }
        while (read_unit(document)) {
            if (is_blank(document)) {
                ++counts_.empty;
                continue;
            }
            ++documents_of_file_;
            ++counts_.documents;
            return true;
        }
        open_.reset();
    }
    return false;
}

bool DocumentReader::read_unit(std::string& document) {
    if (is_jsonl(open_->path)) return read_json_line(document);
    return options_.boundaries == Boundaries::file ? read_whole_file(document) : read_lines(document);
}

// Converts to UTF-8 in place; false if the text is invalid and to be skipped.
bool DocumentReader::convert(std::string& text, int64_t first_byte, bool first_of_file) {
    if (first_of_file && options_.encoding == Encoding::utf8 && text.starts_with(byte_order_mark)) {
        text.erase(0, byte_order_mark.size());
        first_byte += static_cast<int64_t>(byte_order_mark.size());
    }
    int64_t invalid = -1;
    if (options_.encoding == Encoding::utf8)
        invalid = find_invalid_utf8(text);
    else
        text = to_utf8(std::string(text), options_.encoding, invalid);
    if (invalid < 0) return true;
    if (options_.malformed == MalformedPolicy::skip) return false;
    const char* remedy = options_.encoding == Encoding::utf8
                             ? "name its encoding (--encoding latin-1 or cp1252), repair it, or skip such text (--malformed skip)"
                             : "name its true encoding, repair it, or skip such text (--malformed skip)";
    fail(Exit::bad_data, "{} is not valid {} at byte {}; {}", open_->path.string(), options_.encoding == Encoding::utf8 ? "UTF-8" : "cp1252",
         first_byte + invalid, remedy);
}

bool DocumentReader::read_whole_file(std::string& document) {
    if (open_->ended) return false;
    open_->ended = true;
    open_->whole = std::make_unique<ByteSource>(open_->path);
    document = read_all(*open_->whole);
    if (convert(document, 0, true)) return true;
    ++counts_.malformed;
    return false;
}

// One line a document, or the lines up to the next blank one.
bool DocumentReader::read_lines(std::string& document) {
    if (!open_->lines) open_->lines.emplace(open_->path);
    LineReader& lines = *open_->lines;
    std::string line;
    while (lines.next(line)) {
        if (is_blank(line)) {
            counts_.empty += options_.boundaries == Boundaries::line;
            continue;
        }
        bool valid = convert(line, lines.byte_offset(), lines.line_number() == 1);
        document = line;
        while (options_.boundaries == Boundaries::blank_line && lines.next(line) && !is_blank(line)) {
            valid &= convert(line, lines.byte_offset(), false);
            document += '\n';
            document += line;
        }
        if (valid) return true;
        ++counts_.malformed;
    }
    return false;
}

bool DocumentReader::read_json_line(std::string& document) {
    if (!open_->lines) open_->lines.emplace(open_->path);
    std::string line;
    while (open_->lines->next(line)) {
        if (is_blank(line)) continue;
        if (!convert(line, open_->lines->byte_offset(), open_->lines->line_number() == 1)) {
            ++counts_.malformed;
            continue;
        }
        try {
            document = text_of(line, open_->json, options_.json_keys);
            return true;
        } catch (const RecordProblem& problem) {
            if (options_.malformed == MalformedPolicy::fail)
                fail(Exit::bad_data, "{}:{} {}; repair the line, name another field (--key), or skip such lines (--malformed skip)", open_->path.string(),
                     open_->lines->line_number(), problem.what);
            ++counts_.malformed;
        }
    }
    return false;
}

}  // namespace flanmoe
