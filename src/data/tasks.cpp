#include "data/tasks.hpp"

#include "core/error.hpp"
#include "data/text_files.hpp"

#include <xxhash.h>

#include <algorithm>

namespace flanmoe {

namespace {

// "arithmetic.jsonl.gz" -> "arithmetic".
std::string task_name(const std::filesystem::path& path) {
    const std::string text = path.generic_string();
    const size_t end = text.rfind(".jsonl");
    return end == std::string::npos || end == 0 ? text : text.substr(0, end);
}

}  // namespace

std::vector<TaskFile> find_tasks(const std::vector<std::string>& paths) {
    std::vector<TaskFile> tasks;
    for (size_t entry = 0; entry < paths.size(); ++entry) {
        const bool folder = std::filesystem::is_directory(paths[entry]);
        for (const InputFile& file : find_input_files({paths[entry]}, {".jsonl"}))
            tasks.push_back({task_name(folder ? file.path.lexically_relative(paths[entry]) : file.path.filename()), file.path, entry});
    }
    return tasks;
}

std::vector<TaskFile> choose_tasks(std::vector<TaskFile> tasks, int64_t count, int64_t seed) {
    if (count == 0) return tasks;
    if (count > static_cast<int64_t>(tasks.size()))
        fail(Exit::usage, "data.tasks is {}, but data.train names {} task files; choose at most so many, or 0 for all", count, tasks.size());
    struct Ranked {
        uint64_t rank;
        size_t place;
    };
    std::vector<Ranked> order;
    for (size_t i = 0; i < tasks.size(); ++i) order.push_back({XXH3_64bits_withSeed(tasks[i].name.data(), tasks[i].name.size(), static_cast<uint64_t>(seed)), i});
    std::stable_sort(order.begin(), order.end(), [](const Ranked& a, const Ranked& b) { return a.rank < b.rank; });
    order.resize(static_cast<size_t>(count));
    std::sort(order.begin(), order.end(), [](const Ranked& a, const Ranked& b) { return a.place < b.place; });
    std::vector<TaskFile> chosen;
    for (const Ranked& ranked : order) chosen.push_back(std::move(tasks[ranked.place]));
    return chosen;
}

}  // namespace flanmoe
