// Raw text as a stream of documents: plain files of any extension, JSONL, compressed or not, and folders of them.
//
// A file is JSONL when its name ends in .jsonl (before .gz or .zst). Order: the inputs as given, folders recursively in byte order of the paths, so
// that the stream is the same everywhere. Names that begin with a dot are left out of folders.
#pragma once

#include "data/byte_source.hpp"
#include "data/data_config.hpp"
#include "data/encoding.hpp"

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

/// Where a plain text file is cut into documents.
enum class Boundaries : uint8_t { file, blank_line, line };
/// "file", "blank-line" or "line"; Exit::usage otherwise.
Boundaries parse_boundaries(std::string_view name);

struct TextOptions {
    Encoding encoding = Encoding::utf8;
    Boundaries boundaries = Boundaries::file;
    std::vector<std::string> json_keys = {"text"};  ///< of these fields, those that a line has are joined by a newline; none = malformed
    MalformedPolicy malformed = MalformedPolicy::fail;
};

struct InputFile {
    std::filesystem::path path;
    int64_t bytes = 0;
};

/// Files behind the inputs. Only those whose name ends in one of `extensions` (before .gz, .zst) are taken from folders; empty = all.
/// Exit::missing_input if an input does not exist, Exit::bad_data if a folder has no such file.
std::vector<InputFile> find_input_files(const std::vector<std::string>& inputs, const std::vector<std::string>& extensions = {});

/// Names with something between them, for messages.
std::string joined(const std::vector<std::string>& parts, std::string_view between);

/// Whether the name says JSONL.
bool is_jsonl(const std::filesystem::path& path);

struct TextCounts {
    int64_t documents = 0;
    int64_t empty = 0;      ///< documents of white space only, left out
    int64_t malformed = 0;  ///< lines or documents skipped by policy
};

class DocumentReader {
public:
    /// Starts at the first document of file number `first_file`.
    DocumentReader(std::vector<InputFile> files, TextOptions options, size_t first_file = 0);
    ~DocumentReader();

    /// The next document as UTF-8. Exit::bad_data (file, line or byte, remedy) for a malformed line or invalid text unless the policy is to skip.
    bool next(std::string& document);

    /// Position behind the last document returned: the file it came from and how many documents of that file have been returned.
    size_t file() const { return file_; }
    int64_t documents_of_file() const { return documents_of_file_; }
    const TextCounts& counts() const { return counts_; }
    int64_t consumed() const;  ///< bytes of the files read so far
    int64_t total() const { return total_; }

private:
    struct OpenFile;
    bool read_unit(std::string& document);
    bool read_whole_file(std::string& document);
    bool read_lines(std::string& document);
    bool read_json_line(std::string& document);
    bool convert(std::string& text, int64_t first_byte, bool first_of_file);

    std::vector<InputFile> files_;
    TextOptions options_;
    size_t file_;
    std::unique_ptr<OpenFile> open_;
    int64_t documents_of_file_ = 0, done_bytes_ = 0, total_ = 0;
    TextCounts counts_;
};

}  // namespace flanmoe
