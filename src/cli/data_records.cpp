// `flanmoe data readers` and `flanmoe data records`: which formats are read, and the records of files as JSON lines.
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"
#include "core/error.hpp"
#include "data/readers/reader.hpp"
#include "data/text_files.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>

namespace flanmoe::cli {

namespace {

void list_readers() {
    Table table({{"reader", Align::left}, {"reads", Align::left}, {"fields", Align::left}});
    for (const Reader& reader : readers()) table.add({reader.name, reader.about, reader.fields.empty() ? "those of the file" : joined(reader.fields, ", ")});
    fmt::print("{}", table.text());
}

// The record as one line: an object of its fields, or a list of those that are named.
std::string line_of(const Record& record, const std::vector<std::string>& fields) {
    if (fields.empty()) return record.fields.json();
    DataValue::List values;
    for (const std::string& name : fields) {
        const DataValue* value = record.fields.find(name);
        if (!value) {
            std::vector<std::string> present;
            for (const DataValue::Member& member : *record.fields.object()) present.push_back(member.name);
            fail(Exit::usage, "{} has no field '{}'; it has: {}", record.place(), name, joined(present, ", "));
        }
        values.push_back(*value);
    }
    return DataValue(std::move(values)).json();
}

}  // namespace

void add_data_records(CLI::App& data_command) {
    CLI::App* list = data_command.add_subcommand("readers", "List the formats that are read, with the fields of their records");
    list->footer("Example:\n  flanmoe data readers");
    list->callback(list_readers);

    struct Arguments {
        std::string reader, encoding = "utf-8", malformed = "fail";
        std::vector<std::string> files, fields;
        ReadOptions options;
        int64_t count = 0;
    };
    const auto a = std::make_shared<Arguments>();
    CLI::App* command = data_command.add_subcommand("records", "Print the records of published data files as JSON lines");
    command->add_option("READER", a->reader, "Name of the format (flanmoe data readers)")->required();
    command->add_option("FILE", a->files, "Files, plain, .gz or .zst")->required();
    command->add_option("--fields", a->fields, "Print a list of these fields in place of an object of all")->delimiter(',');
    command->add_option("--columns", a->options.columns, "Names of the columns of CSV or TSV without header, or of aligned files")->delimiter(',');
    command->add_option("--records", a->options.records, "Member of a JSON document that holds the records");
    command->add_option("--encoding", a->encoding, "Of the files: utf-8, latin-1, cp1252")->capture_default_str();
    command->add_option("--malformed", a->malformed, "Malformed records: fail, or skip (and count)")->check(CLI::IsMember({"fail", "skip"}))->capture_default_str();
    command->add_option("--count", a->count, "Print so many; 0: all")->check(not_negative);
    command->footer("Example:\n  flanmoe data records gsm8k test.jsonl --fields question,answer --count 3");
    command->callback([a] {
        a->options.encoding = parse_encoding(a->encoding);
        a->options.malformed = a->malformed == "skip" ? MalformedPolicy::skip : MalformedPolicy::fail;
        const std::vector<std::filesystem::path> files(a->files.begin(), a->files.end());
        int64_t printed = 0;
        const ReadCounts counts = read_records(find_reader(a->reader), files, a->options, [&](Record&& record) {
            if (a->count == 0 || printed++ < a->count) fmt::print("{}\n", line_of(record, a->fields));
        });
        std::fflush(stdout);
        fmt::print(stderr, "{} records, {} malformed skipped{}\n", counts.records, counts.malformed, counts.headers ? fmt::format(", {} headers", counts.headers) : "");
        for (const std::string& problem : counts.problems) fmt::print(stderr, "skipped: {}\n", problem);
        if (const auto more = counts.malformed - static_cast<int64_t>(counts.problems.size()); more > 0) fmt::print(stderr, "skipped: {} more\n", more);
    });
}

}  // namespace flanmoe::cli
