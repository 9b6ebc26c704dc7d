// The tasks of instruction data: every JSONL file is one, in training as in evaluation.
//
// A choice of tasks is nested and does not depend on where the files lie: tasks are ordered by a hash of the seed and their name, and the first ones are taken.
// So 10 of 69 tasks are among 20 of them, and a study over the number of tasks adds tasks without ever exchanging one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace flanmoe {

struct TaskFile {
    std::string name;  ///< path below the folder that was named, without extension ("translate_to")
    std::filesystem::path path;
    std::size_t entry = 0;  ///< which of the paths it was found under
};

/// The JSONL files behind the paths, in order: folders recursively in byte order. Exit::missing_input, Exit::bad_data as find_input_files().
std::vector<TaskFile> find_tasks(const std::vector<std::string>& paths);
/// `count` of them (0 = all) by the seed, in their original order. Exit::usage if there are fewer.
std::vector<TaskFile> choose_tasks(std::vector<TaskFile> tasks, int64_t count, int64_t seed);

}  // namespace flanmoe
