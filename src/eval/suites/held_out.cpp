// Questions and held-out items are matched by the file they stand in and their place there: both sides read the benchmark's own files with the same readers.
#include "data/held_out.hpp"
#include "eval/suites/suite.hpp"

#include <set>

namespace flanmoe {

namespace {

// "x/y/test/anatomy_test.csv:18" and "z/test/anatomy_test.csv:18" are the same, wherever the data lies: folder and name, and what follows.
std::string without_upper_folders(const std::string& named) {
    const std::string place = std::filesystem::absolute(named).lexically_normal().string();
    size_t at = place.rfind('/');
    if (at != std::string::npos && at > 0) at = place.rfind('/', at - 1);
    return at == std::string::npos ? place : place.substr(at + 1);
}

// The file of a place: "file:18" or "file, record 18".
std::string file_of(const std::string& place) {
    const size_t record = place.rfind(", record ");
    return place.substr(0, record != std::string::npos ? record : place.rfind(':'));
}

}  // namespace

int64_t mark_held_out(std::vector<SuiteTask>& tasks, const Overlaps& overlaps) {
    std::set<std::string> files;
    std::map<std::string, bool> found;  // place -> exactly
    for (const std::string& file : overlaps.files) files.insert(without_upper_folders(file));
    for (const Overlaps::Place& place : overlaps.places) found[without_upper_folders(place.item)] |= place.exact;
    int64_t unknown = 0;
    for (SuiteTask& task : tasks) {
        HeldOutCounts counts;
        bool compared = !task.questions.empty();
        for (const SuiteQuestion& question : task.questions) {
            const std::string place = without_upper_folders(question.place);
            compared = compared && files.contains(file_of(place));
            if (const auto item = found.find(place); item != found.end()) ++(item->second ? counts.exact : counts.ngram);
        }
        if (compared)
            task.held_out = counts;
        else
            ++unknown;
    }
    return unknown;
}

}  // namespace flanmoe
