// The table of readers, and those that take a file as it is.
#include "data/readers/families.hpp"

namespace flanmoe {

void add_plain_readers(std::vector<Reader>& rows) {
    rows.push_back({.name = "jsonl", .about = "one JSON object a line", .layout = Layout::json_lines});
    rows.push_back({.name = "json", .about = "a JSON document: a list of objects, or an object of them; `records` names the member that holds them", .layout = Layout::json});
    rows.push_back({.name = "csv", .about = "CSV (RFC 4180) with a header, or with `columns` named", .layout = Layout::csv});
    rows.push_back({.name = "tsv", .about = "cells between tabs, no quotes, with a header, or with `columns` named", .layout = Layout::tsv});
    rows.push_back({.name = "lines", .about = "a record a line", .layout = Layout::lines, .fields = {"line"}});
    rows.push_back({.name = "aligned", .about = "line n of every file together; fields are `columns`, else the file names", .layout = Layout::aligned});
}

const std::vector<Reader>& readers() {
    static const std::vector<Reader> rows = [] {
        std::vector<Reader> all;
        add_plain_readers(all);
        add_prompt_readers(all);
        add_mathematics_readers(all);
        add_choice_readers(all);
        add_reading_readers(all);
        add_pair_readers(all);
        add_downstream_readers(all);
        return all;
    }();
    return rows;
}

}  // namespace flanmoe
