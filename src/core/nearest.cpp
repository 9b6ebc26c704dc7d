#include "core/nearest.hpp"

#include <algorithm>
#include <utility>

namespace flanmoe {

int edit_distance(std::string_view a, std::string_view b) {
    // Three rows of the dynamic program: two characters back for swaps, one back, and the current one.
    std::vector<int> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) previous[j] = static_cast<int>(j);
    for (size_t i = 1; i <= a.size(); ++i) {
        current[0] = static_cast<int>(i);
        for (size_t j = 1; j <= b.size(); ++j) {
            current[j] = std::min({previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a[i - 1] != b[j - 1])});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) current[j] = std::min(current[j], before[j - 2] + 1);
        }
        std::swap(before, previous);
        std::swap(previous, current);
    }
    return previous[b.size()];
}

std::string nearest(std::string_view name, const std::vector<std::string>& candidates) {
    int best = std::max<int>(2, static_cast<int>(name.size()) / 3) + 1;
    std::string found;
    for (const std::string& candidate : candidates) {
        const int distance = edit_distance(name, candidate);
        // A name of two letters is not near to every other name of two letters.
        if (distance < best && distance < static_cast<int>(std::max(name.size(), candidate.size()))) {
            best = distance;
            found = candidate;
        }
    }
    return found;
}

std::string suggestion(std::string_view name, const std::vector<std::string>& candidates) {
    const std::string found = nearest(name, candidates);
    return found.empty() ? "" : " (did you mean " + found + "?)";
}

}  // namespace flanmoe
