// Readers: published data files to records of named fields.
//
// A reader is a layout (how records stand in a file: one JSON object a line, a JSON document, CSV, TSV, XML, aligned files) and a conversion that gives
// the fields of a family their house names, so that templates and evaluation need not know the file. One table (table.cpp) names them all; to add one, write the
// conversion in the file of its family and its row.
//
// House names: question, context, answer (a text), answers (a list of accepted texts), options (texts to choose from) with letters (their names),
// letter (that of the right one), rationale (a worked solution without the answer's mark), id. Every row of the table lists the fields that its records always have.
//
// Files may be plain, gzip or Zstandard (byte_source.hpp). Text is UTF-8, or converted from the encoding that is named; a byte order mark is dropped.
#pragma once

#include "data/data_config.hpp"
#include "data/data_value.hpp"
#include "data/encoding.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace flanmoe {

inline constexpr const char* labels_file = "labels.json";  ///< beside data in GLUE's format: names of its labels

/// One record with where it stands.
struct Record {
    DataValue fields;  ///< an object
    std::string file;
    int64_t number = 0;    ///< from 1: line, or number of the record in its file
    bool by_line = false;  ///< which of the two
    /// "file:17" or "file, record 17".
    std::string place() const;
};

struct ReadOptions {
    Encoding encoding = Encoding::utf8;
    MalformedPolicy malformed = MalformedPolicy::fail;
    std::vector<std::string> columns;  ///< csv, tsv: names of the columns of a file without a header; aligned: of the files
    std::string records;               ///< json: the member of the document that holds the records, in place of the reader's own
};

/// What became of what stands in the files: every piece is in one of the counts.
struct ReadCounts {
    int64_t records = 0;
    int64_t malformed = 0;    ///< skipped by policy: records, and parts of one that would be records of their own (a question of an article)
    int64_t headers = 0;      ///< say what the file is, and are no examples (MRQA)
    int64_t not_chosen = 0;   ///< of a task: left to others by its [only], [except] and [portion]
    int64_t unknown_ids = 0;  ///< of a task: in its [only] or [except], but of no record
    static constexpr std::size_t most_named = 20;
    std::vector<std::string> problems;  ///< place and reason of the first of those malformed, and of lists with unknown ids

    void add_malformed(const std::string& problem);
    /// What was not read and why, in words; empty if everything was.
    std::string losses() const;
};

enum class Layout : uint8_t {
    json_lines,  ///< an object a line; or one array of objects
    json,        ///< a document: its records are the elements of an array, or the members of an object (which then get its name as "id")
    csv,         ///< RFC 4180: quoted cells may hold commas, quotes (doubled) and line breaks
    tsv,         ///< cells between tabs, no quotes
    lines,       ///< a record a line, as field "line"
    xml,         ///< elements of one name: attributes and children become fields
    aligned,     ///< line n of every file together are a record
};

/// What is wrong with a record, thrown by conversions: "has no field 'answer' (it has: ...)". Place and remedy are added by who reads.
struct RecordProblem {
    std::string what;
};

/// The file that a record is in.
struct SourceFile {
    std::filesystem::path path;
    DataValue document;  ///< json: the members of the document beside its records
    std::string stem() const;  ///< file name without folder and extensions
};

/// Takes what a conversion makes of a raw record.
class Emit {
public:
    virtual ~Emit() = default;
    virtual void operator()(DataValue&& record) = 0;
    /// A part that would be a record of its own is not one: "(question 3) has no field 'answers'". Those beside it are not lost.
    virtual void malformed(const std::string& problem) = 0;
    /// The raw record says what the file is, and is no example.
    virtual void header() = 0;
};

struct Reader {
    std::string name, about;
    Layout layout = Layout::json_lines;
    std::string records;  ///< json: name of the member that holds the records ("" = the document itself); xml: name of the element
    std::vector<std::string> columns;                               ///< csv, tsv: names when the file has no header
    bool (*is_header)(const std::vector<std::string>& cells) = nullptr;  ///< csv, tsv: whether a first row is one; null: it is, unless columns are named
    void (*convert)(const DataValue& raw, const SourceFile& file, Emit& emit) = nullptr;  ///< one or several records of a raw one; null: as it is
    std::vector<std::string> fields;                                ///< that every record has; empty: those of the file
    bool open = false;                                              ///< records may have more fields than these
};

/// All readers, by family.
const std::vector<Reader>& readers();
/// Exit::usage with the nearest name if there is none.
const Reader& find_reader(const std::string& name);

/// Calls `take` for every record of the files in order. A record that is malformed is an error (Exit::bad_data with file, line or record, field and remedy), or is
/// counted and skipped. Exit::missing_input if a file is not there; Exit::bad_data if a document as a whole cannot be read, whatever the policy.
ReadCounts read_records(const Reader& reader, const std::vector<std::filesystem::path>& files, const ReadOptions& options,
                        const std::function<void(Record&&)>& take);

}  // namespace flanmoe
