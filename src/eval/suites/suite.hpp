// Benchmark suites: from a benchmark's published files to questions with their prompts, answers and rules.
//
// A suite is one file here and a row of the table (table.cpp): it says where its files lie below the data folder (as in configs/task), lays prompts out as its authors
// publish them, and gives tasks (subjects, sub-tasks, languages). A task file (configs/task) is a suite, too. A prompt is a head, shots, and the question; shots leave from the
// front where the context is short. Exemplars come from the benchmark's own files, from a file that the user names, or are drawn from a training split.
#pragma once

#include "data/data_config.hpp"
#include "eval/answers.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace flanmoe {

enum class PromptMode : uint8_t { direct, cot };
const char* mode_name(PromptMode mode);

/// Of the answer that is written (exact match; F1 of spans), and of the most probable option: by the sum of its log-probabilities, per token, per byte.
enum class Measure : uint8_t { generation, likelihood, per_token, per_byte, f1 };
constexpr size_t measure_count = 5;
const char* measure_name(Measure measure);

struct SuiteQuestion {
    std::string id;      ///< "mmlu/anatomy/direct/17": suite, task, mode, number in the file
    std::string place;   ///< "anatomy_test.csv:18"
    std::string prompt;  ///< behind the shots
    std::vector<std::string> answers;  ///< accepted, as the file has them
    std::vector<std::string> options;  ///< scored by likelihood; empty: none
    std::vector<std::string> choices;  ///< texts of the options, for the rule
    std::string group;                 ///< questions that belong together (contrasts of one another) have the same; "" = none
};

/// Questions that stand in what a model was trained on: the whole of them, or some words one behind another.
struct HeldOutCounts {
    int64_t exact = 0, ngram = 0;
};

struct SuiteTask {
    std::string suite, name, category, language;
    PromptMode mode = PromptMode::direct;
    AnswerRule rule = AnswerRule::text;
    Measure written = Measure::generation;  ///< what counts of an answer that is written: generation, or f1 (rule span)
    bool numbers = false;  ///< answers are numbers as text, whose correlation is told, too
    bool counts = true;  ///< in the suite's mean; MGSM's and TyDi QA's English does not
    std::string stop;    ///< where a model begins another question
    std::string head;
    std::vector<std::string> shots;
    std::vector<SuiteQuestion> questions;
    std::map<std::string, int64_t> dropped;  ///< records that are no questions, exemplars that are none, by reason
    int64_t records = 0;                     ///< seen so far, for ids
    std::optional<HeldOutCounts> held_out;   ///< empty: it is not known

    /// The whole prompt with the last `count` shots.
    std::string prompt(const SuiteQuestion& question, size_t count) const;
};

struct SuiteSettings {
    std::filesystem::path data = ".";
    std::string split;                                       ///< "" = the suite's own; Exit::usage for one that a suite does not have
    std::map<std::string, std::filesystem::path> exemplars;  ///< suite -> file or folder; Exit::usage for a suite that would not read it
    int64_t shots = -1;                                      ///< -1 = the suite's own number
    int64_t limit = 0;                                       ///< questions of a task, the first ones; 0 = all
    uint64_t seed = 0;                                       ///< of exemplars that are drawn
    std::vector<std::string> only;                           ///< tasks, by name or "suite/name"; empty = all of the suite
    MalformedPolicy malformed = MalformedPolicy::fail;

    bool wants(const std::string& suite, const std::string& task) const;
};

struct Suite {
    std::string name, about;
    std::vector<PromptMode> modes;
    int64_t shots = 0;
    std::vector<std::string> splits;          ///< that may be asked for, its own first; "validation" is also called val and dev. Empty: there is only one set of questions
    std::vector<PromptMode> exemplar_modes;   ///< modes whose exemplars may come from a file that the user names
    std::vector<SuiteTask> (*build)(PromptMode mode, const SuiteSettings& settings) = nullptr;  ///< Exit::missing_input with where to get what is not there, Exit::bad_data
};

/// A mean of the normalised scores of other suites.
struct SuiteAverage {
    std::string name, about;
    std::vector<std::pair<std::string, PromptMode>> parts;
};

const std::vector<Suite>& suites();
const std::vector<SuiteAverage>& suite_averages();

/// The tasks of what is named: "mmlu", "mmlu/cot", an average's name, or a task file (.toml). Exit::usage with the nearest name, and for settings that a suite would ignore.
std::vector<SuiteTask> build_suites(const std::vector<std::string>& names, const SuiteSettings& settings);
struct Overlaps;
/// Sets `held_out` of the tasks whose files a search (data/held_out.hpp) has compared; gives the number of the others.
int64_t mark_held_out(std::vector<SuiteTask>& tasks, const Overlaps& overlaps);
/// Those of the averages whose parts are all among the tasks.
std::vector<SuiteAverage> averages_of(const std::vector<SuiteTask>& tasks);

std::vector<SuiteTask> build_mmlu(PromptMode mode, const SuiteSettings& settings);
std::vector<SuiteTask> build_bbh(PromptMode mode, const SuiteSettings& settings);
std::vector<SuiteTask> build_reasoning(PromptMode mode, const SuiteSettings& settings);
std::vector<SuiteTask> build_qa(PromptMode mode, const SuiteSettings& settings);
std::vector<SuiteTask> build_tydiqa(PromptMode mode, const SuiteSettings& settings);
std::vector<SuiteTask> build_mgsm(PromptMode mode, const SuiteSettings& settings);
std::vector<SuiteTask> build_task_file(const std::string& path, const SuiteSettings& settings);

}  // namespace flanmoe
