// The nearest of several names, for errors about a name that does not exist.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment distance).
int edit_distance(std::string_view a, std::string_view b);
/// The candidate at the smallest distance from `name`, the first of equals; empty if none is near (more than a third of it differs).
std::string nearest(std::string_view name, const std::vector<std::string>& candidates);
/// " (did you mean X?)" or, without a near candidate, an empty string.
std::string suggestion(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace flanmoe
