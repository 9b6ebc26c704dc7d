// Filters, methods and functions of templates.
#pragma once

#include "core/random.hpp"
#include "data/data_value.hpp"

#include <string>
#include <utility>
#include <vector>

namespace flanmoe::templates {

struct Arguments {
    std::vector<DataValue> values;
    std::vector<std::pair<std::string, DataValue>> keywords;

    /// The argument by its place or its name; null if it is not given.
    const DataValue* find(std::size_t place, const char* name) const;
};

/// Whether there is a filter, method or function of that name. What exists, with the arguments that are understood:
///   filters: join(d) length count first last lower upper capitalize title trim(chars) replace(old, new, count) int(default) float(default) round(precision) string list
///            default(default_value, boolean) choice map(attribute=, default=) map(filter, ...) sort(reverse, case_sensitive, attribute) unique(case_sensitive, attribute) reverse
///   methods: join split(sep, maxsplit) index lower upper capitalize title strip lstrip rstrip replace startswith endswith append count items keys values get
///   functions: range(stop) range(start, stop) zip
bool known_filter(const std::string& name);
bool known_method(const std::string& name);
bool known_function(const std::string& name);
std::vector<std::string> filter_names();
std::vector<std::string> method_names();

/// What of the arguments of a known filter, method ("join()") or function is not understood, or ""; `names` are those of the keyword arguments.
std::string refusal_of_arguments(const std::string& kind, const std::string& name, std::size_t values, const std::vector<std::string>& names);

/// RecordProblem if the values are of the wrong kind. `default` takes a value that is there; what is not is the caller's.
DataValue apply_filter(const std::string& name, const DataValue& value, const Arguments& arguments, RandomStream& random);
DataValue apply_method(const std::string& name, const DataValue& object, const Arguments& arguments);
DataValue apply_function(const std::string& name, const Arguments& arguments);

/// Item and slice with Python's rules: negative places count from the end, characters of texts are Unicode.
DataValue item_of(const DataValue& value, const DataValue& place);
DataValue slice_of(const DataValue& value, const DataValue& from, const DataValue& to);

}  // namespace flanmoe::templates
