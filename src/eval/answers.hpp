// Answers out of what a model wrote: named rules, each applied to the output and to the accepted answers alike.
//
// All rules first cut the output where the model goes on with another question (`stop`), then look behind the last "answer is" (in any case, with a colon or not), the
// phrase that chain-of-thought prompts end in; without it each rule says where it looks. What no rule finds is the empty text, and counts as wrong.
//
//   letter   the first letter of an option behind the phrase, in brackets or alone; without it: a letter that begins the output ("B", "B.", "(b) ox"), else the first in
//            brackets; else the option whose text the answer is
//   number   the first number behind the phrase; without one there: the last of the output. "1,234.50", "$1234.5" and the digits of other scripts are the same
//   yes_no   the first of yes, no, true, false behind the phrase; without it the first word if it is one, else the last such word
//   option   the option that the answer is, letter case, white space and a final full stop aside; or the one whose letter it begins with, in brackets
//   text     the answer's line, letter case, white space and a final full stop aside
//   span     the same line as it stands, for exact match and F1 of eval/text_metrics.hpp
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

enum class AnswerRule : uint8_t { letter, number, yes_no, option, text, span };
const char* rule_name(AnswerRule rule);

/// The answer in an output, in the form that answers are compared in; "" if there is none. `choices` are the texts of the options.
std::string extract_answer(AnswerRule rule, std::string_view output, std::string_view stop, const std::vector<std::string>& choices);
/// An accepted answer of a data file in that form; "" if it cannot be one ("2:3" is no number).
std::string canonical_answer(AnswerRule rule, std::string_view answer, const std::vector<std::string>& choices);

}  // namespace flanmoe
