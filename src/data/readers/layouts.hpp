// How records stand in files: raw records, before the conversion of a family.
#pragma once

#include "data/readers/reader.hpp"

namespace flanmoe {

/// Takes raw records, and what is wrong with those that cannot be had.
class RawSink {
public:
    virtual ~RawSink() = default;
    virtual void take(DataValue&& raw, const SourceFile& file, int64_t number, bool by_line) = 0;
    virtual void malformed(const SourceFile& file, int64_t number, bool by_line, const std::string& problem) = 0;
};

void read_json_lines(const std::filesystem::path& path, const ReadOptions& options, RawSink& sink);
void read_json_document(const Reader& reader, const std::filesystem::path& path, const ReadOptions& options, RawSink& sink);
void read_delimited(const Reader& reader, const std::filesystem::path& path, const ReadOptions& options, RawSink& sink);
void read_lines(const std::filesystem::path& path, const ReadOptions& options, RawSink& sink);
void read_aligned(const std::vector<std::filesystem::path>& files, const ReadOptions& options, RawSink& sink);
void read_xml(const Reader& reader, const std::filesystem::path& path, const ReadOptions& options, RawSink& sink);

/// The whole file as UTF-8 without byte order mark. Exit::bad_data with the byte if it is not text of the encoding.
std::string read_text(const std::filesystem::path& path, Encoding encoding);
/// A line as UTF-8; false with what is wrong with it otherwise.
bool convert_line(std::string& line, Encoding encoding, bool first, std::string& problem);

}  // namespace flanmoe
