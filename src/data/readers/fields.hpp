// Fields of raw records, for conversions: each gives the field or throws the RecordProblem that names it.
#pragma once

#include "data/readers/reader.hpp"
#include "data/strings.hpp"

namespace flanmoe {

/// The first of the fields that the record has; RecordProblem "has no field 'a' or 'b' (it has: ...)".
const DataValue& any_field(const DataValue& record, const std::vector<std::string>& names);
const DataValue& field(const DataValue& record, const std::string& name);
/// The name of the first that is there, with the same problem.
const std::string& name_of_field(const DataValue& record, const std::vector<std::string>& names);
/// A text; numbers are no texts.
const std::string& text_field(const DataValue& record, const std::string& name);
/// A text or number as text.
std::string scalar_field(const DataValue& record, const std::string& name);
/// A whole number.
int64_t integer_field(const DataValue& record, const std::string& name);
const DataValue::List& list_field(const DataValue& record, const std::string& name);
/// A list of texts.
std::vector<std::string> texts_field(const DataValue& record, const std::string& name);
/// The first of the fields that the record has: a text, or a list of one at least, each accepted.
std::vector<std::string> accepted_field(const DataValue& record, const std::vector<std::string>& names);
/// The text, or "" if there is none.
std::string optional_text(const DataValue& record, const std::string& name);

/// Adds the text unless the list has it.
void add_new(std::vector<std::string>& texts, const std::string& text);

/// Calls `convert` for every object of a list that holds several records, with its name: "question 3". What has a RecordProblem is malformed by itself.
void for_each_part(const DataValue::List& parts, const std::string& kind, Emit& emit, const std::function<void(const DataValue& part, const std::string& name)>& convert);

/// "A", "B", ... for the place of an option.
std::string letter(size_t index);
/// options, letters, answer, letter of a multiple-choice record. RecordProblem if `right` is not the place of an option.
void set_choices(DataValue& record, const std::vector<std::string>& options, const std::vector<std::string>& letters, size_t right);

}  // namespace flanmoe
