// CSV, TSV, plain and aligned lines.
#include "core/error.hpp"
#include "data/byte_source.hpp"
#include "data/readers/layouts.hpp"
#include "data/strings.hpp"
#include "data/text_files.hpp"

#include <memory>
#include <optional>

namespace flanmoe {

namespace {

// Cells of CSV, row by row, from the text of a whole file: quoted cells may hold line breaks.
class CsvRows {
public:
    explicit CsvRows(std::string_view text) : text_(text) {}

    /// The next row and the line on which it begins; a row with a problem says so and the rest goes on behind the next line break.
    bool next(std::vector<std::string>& cells, int64_t& line, std::string& problem) {
        cells.clear();
        problem.clear();
        if (at_ >= text_.size()) return false;
        line = line_;
        const size_t begin = at_;
        for (;;) {
            cells.emplace_back();
            if (at_ < text_.size() && text_[at_] == '"' && !quoted(cells.back(), problem)) {
                at_ = begin, line_ = line;  // a quote that is never closed has taken all rows behind it
                to_next_line();
                return true;
            }
            while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '\n') cells.back() += text_[at_++];
            if (at_ < text_.size() && text_[at_] == ',') {
                ++at_;
                continue;
            }
            if (!cells.back().empty() && cells.back().back() == '\r') cells.back().pop_back();
            to_next_line();
            return true;
        }
    }

private:
    bool quoted(std::string& cell, std::string& problem) {
        const int64_t begin = line_;
        for (++at_; at_ < text_.size(); ++at_) {
            line_ += text_[at_] == '\n';
            if (text_[at_] != '"') {
                cell += text_[at_];
            } else if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
                cell += text_[at_++];
            } else {
                ++at_;
                const bool closed = at_ >= text_.size() || text_[at_] == ',' || text_[at_] == '\n' || text_[at_] == '\r';
                if (!closed) problem = "has text behind a closing quote; double the quotes inside of a cell";
                return closed;
            }
        }
        problem = fmt::format("opens a quote on line {} that is never closed", begin);
        return false;
    }
    void to_next_line() {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
        ++at_, ++line_;
    }

    std::string_view text_;
    size_t at_ = 0;
    int64_t line_ = 1;
};

// Rows of cells to records: the first may be a header.
class RowTaker {
public:
    RowTaker(const Reader& reader, const std::filesystem::path& path, const ReadOptions& options, RawSink& sink)
        : reader_(reader), sink_(sink), file_{path, {}}, names_(options.columns.empty() ? reader.columns : options.columns),
          header_given_(!options.columns.empty()) {}

    void row(std::vector<std::string>&& cells, int64_t line) {
        if (first_) {
            first_ = false;
            const bool header = header_given_ ? false : reader_.is_header ? reader_.is_header(cells) : names_.empty();
            if (header) {
                names_ = cells;
                return;
            }
        }
        if (cells.size() != names_.size()) {
            malformed(line, fmt::format("has {} cells where {} are expected ({})", cells.size(), names_.size(), joined(names_, ", ")));
            return;
        }
        DataValue::Object record;
        for (size_t i = 0; i < cells.size(); ++i) record.push_back({names_[i], DataValue(std::move(cells[i]))});
        sink_.take(DataValue(std::move(record)), file_, line, true);
    }
    void malformed(int64_t line, const std::string& problem) { sink_.malformed(file_, line, true, problem); }

private:
    const Reader& reader_;
    RawSink& sink_;
    SourceFile file_;
    std::vector<std::string> names_;
    bool header_given_, first_ = true;
};

}  // namespace

void read_delimited(const Reader& reader, const std::filesystem::path& path, const ReadOptions& options, RawSink& sink) {
    RowTaker taker(reader, path, options, sink);
    std::string problem;
    if (reader.layout == Layout::csv) {
        const std::string text = read_text(path, options.encoding);
        CsvRows rows(text);
        std::vector<std::string> cells;
        for (int64_t line = 0; rows.next(cells, line, problem);) {
            if (!problem.empty())
                taker.malformed(line, problem);
            else if (cells.size() > 1 || !cells[0].empty())
                taker.row(std::move(cells), line);
        }
        return;
    }
    LineReader lines(path);
    std::string line;
    while (lines.next(line)) {
        if (!convert_line(line, options.encoding, lines.line_number() == 1, problem))
            taker.malformed(lines.line_number(), problem);
        else if (!line.empty())
            taker.row(split(line, "\t"), lines.line_number());
    }
}

void read_lines(const std::filesystem::path& path, const ReadOptions& options, RawSink& sink) {
    LineReader lines(path);
    const SourceFile file{path, {}};
    std::string line, problem;
    while (lines.next(line)) {
        if (!convert_line(line, options.encoding, lines.line_number() == 1, problem))
            sink.malformed(file, lines.line_number(), true, problem);
        else if (line.find_first_not_of(" \t\r") != std::string::npos)
            sink.take(DataValue(DataValue::Object{{"line", DataValue(line)}}), file, lines.line_number(), true);
    }
}

void read_aligned(const std::vector<std::filesystem::path>& files, const ReadOptions& options, RawSink& sink) {
    if (files.empty()) return;
    if (!options.columns.empty() && options.columns.size() != files.size())
        fail(Exit::usage, "{} aligned files and {} names of columns; give one name for each file", files.size(), options.columns.size());
    std::vector<std::unique_ptr<LineReader>> readers;
    std::vector<SourceFile> sources;
    for (const std::filesystem::path& path : files) {
        readers.push_back(std::make_unique<LineReader>(path));
        sources.push_back({path, {}});
    }
    std::string line, problem;
    for (;;) {
        DataValue::Object record;
        size_t ended = 0, wrong = files.size();
        for (size_t i = 0; i < files.size(); ++i) {
            if (!readers[i]->next(line)) {
                ++ended;
                continue;
            }
            if (!convert_line(line, options.encoding, readers[i]->line_number() == 1, problem)) wrong = i;
            record.push_back({options.columns.empty() ? files[i].filename().string() : options.columns[i], DataValue(line)});
        }
        if (ended == files.size()) return;
        if (ended > 0) {
            int64_t least = INT64_MAX, most = 0;
            size_t shortest = 0;
            for (size_t i = 0; i < files.size(); ++i) {
                most = std::max(most, readers[i]->line_number());
                if (readers[i]->line_number() < least) least = readers[i]->line_number(), shortest = i;
            }
            fail(Exit::bad_data, "{} ends after {} lines, but the files beside it go on to line {}; line n of all of them belong together: download them again",
                 files[shortest].string(), least, most);
        }
        const int64_t number = readers[0]->line_number();
        if (wrong < files.size())
            sink.malformed(sources[wrong], number, true, problem);
        else
            sink.take(DataValue(std::move(record)), sources[0], number, true);
    }
}

}  // namespace flanmoe
