// Numbers, comparisons and arithmetic of templates, with Python's rules.
#pragma once

#include "data/data_value.hpp"

#include <string>

namespace flanmoe::templates {

/// Truths, integers and reals as a number; false for anything else.
bool number_of(const DataValue& value, double& number);
/// int(value) and float(value); false where Python raises a ValueError or TypeError. RecordProblem for what has no 64 bits.
bool python_int(const DataValue& value, int64_t& whole);
bool python_float(const DataValue& value, double& real);
/// round(value, digits): of integers an integer, of reals to the nearest decimal of the exact binary value.
DataValue rounded(const DataValue& value, int64_t digits);

/// a < b of two numbers or two texts; RecordProblem for others.
bool less(const DataValue& a, const DataValue& b);
/// == != < > <= >= in "not in" + - * / // % ~; RecordProblem for operands of the wrong kind.
DataValue apply_operator(const std::string& name, const DataValue& a, const DataValue& b);
/// The value as Python writes it; RecordProblem for lists and objects, which it writes otherwise than we would.
std::string written(const DataValue& value);

}  // namespace flanmoe::templates
