// What suites share in reading: files with where to get them, splits, exemplars, and the checks that every task goes through.
#pragma once

#include "data/readers/reader.hpp"
#include "eval/suites/suite.hpp"


namespace flanmoe {

/// Where a suite's files are to be had, and how they must lie, for messages.
struct SuiteFiles {
    const char* suite;
    const char* origin;  ///< "github.com/hendrycks/test"
    const char* layout;  ///< "mmlu/test/SUBJECT_test.csv and mmlu/dev/SUBJECT_dev.csv"
};

/// Exit::missing_input with origin and layout.
[[noreturn]] void missing_files(const SuiteFiles& files, const std::filesystem::path& path);
/// The records of a file; missing_files() if it is not there. Those that are malformed, or have the id of one before them, are Exit::bad_data, or counted in `dropped` by settings.malformed.
std::vector<Record> read_suite_file(const SuiteFiles& files, const std::string& reader, const std::filesystem::path& path, const SuiteSettings& settings,
                                    std::map<std::string, int64_t>& dropped);
/// A record that is not what its suite takes: Exit::bad_data with its place, or counted by settings.malformed.
void reject(const Record& record, const std::string& problem, const SuiteSettings& settings, std::map<std::string, int64_t>& dropped);
/// The exemplar file or folder that the user names for the suite, or `standard`. Exit::missing_input if the user's is not there.
std::filesystem::path exemplar_path(const std::string& suite, const SuiteSettings& settings, const std::filesystem::path& standard);

/// Fields of a record that its reader promises.
const std::string& text_of(const Record& record, const char* field);
std::vector<std::string> texts_of(const Record& record, const char* field);

/// Adds a question with its id and place, or counts why not: no accepted answer is one that the rule can read, or none is among the choices.
void add_question(SuiteTask& task, const Record& record, SuiteQuestion question);
/// The number of shots that is asked for. Exit::bad_data "too few exemplars" if there are fewer.
size_t shot_count(const Suite& suite, const SuiteSettings& settings, size_t available, const std::string& from);
/// Exit::bad_data, with the reasons, for a task without a question; cuts the others at the limit.
void finish_task(SuiteTask& task, const SuiteSettings& settings);

/// `count` of the records without repetition, in an order; seed and name decide both.
std::vector<const Record*> draw(const std::vector<Record>& records, size_t count, uint64_t seed, const std::string& name);

/// Exemplars as text: blocks that begin with `mark` ("Q: ") behind an empty line or at the start; `head` is what stands before the first. Exit::bad_data without a block.
struct TextShots {
    std::string head;
    std::vector<std::string> blocks;  ///< without white space at their ends
};
TextShots parse_shots(const std::string& text, const std::string& mark, const std::string& origin);

/// Exit::usage with the nearest name.
const Suite& suite_named(const std::string& name);

}  // namespace flanmoe
