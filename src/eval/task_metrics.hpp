// Metrics of a whole task, which are no means over its examples: correlation of numbers, F1 over labels, consistency over groups of contrasting questions.
//
// Numbers as text, as T5 does STS-B: an output is what Python's float() would make of it; what is no finite number counts as -1 and is counted. A correlation that is
// undefined (fewer than two examples, predictions or targets that are all equal) is 0: nothing was shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

/// Pearson's r, in [-1, 1].
double pearson_correlation(const std::vector<double>& x, const std::vector<double>& y);
/// Pearson's r of the ranks; equal values share the mean of their ranks.
double spearman_correlation(const std::vector<double>& x, const std::vector<double>& y);

/// A text that is one finite decimal number, with blanks around it at most.
std::optional<double> parse_number(std::string_view text);

/// An output with what was wanted.
struct Prediction {
    const std::string* output = nullptr;
    const std::vector<std::string>* targets = nullptr;
};

struct NumberScores {
    double pearson = 0, spearman = 0;
    int64_t unparsed = 0;  ///< outputs that are no numbers
};
/// Empty unless the first target of every example is a number.
std::optional<NumberScores> score_numbers(const std::vector<Prediction>& predictions);

/// Mean over the labels, those that are a first target, of the F1 of an output being that label (both normalised as exact match does). A label that is never given has F1 0.
double macro_f1(const std::vector<Prediction>& predictions);

struct CandidatesF1 {
    double f1 = 0;
    double variance = 0;  ///< of it, by linearisation of the ratio, where groups are independent
};
/// MultiRC's F1a (Khashabi et al. 2018; SuperGLUE): candidates for questions are judged one by one, a question's candidates being a group, and F1 is that of the outputs that say the first
/// option, over all candidates of all questions together: 2 true positives / (given + wanted), 0 if there are none of either. Empty unless every example has the same two options and a group, and
/// some group has two examples at least.
std::optional<CandidatesF1> candidates_f1(const std::vector<Prediction>& predictions, const std::vector<const std::vector<std::string>*>& options, const std::vector<const std::string*>& groups);

struct Consistency {
    int64_t consistent = 0;  ///< groups all of whose questions are answered right
    int64_t groups = 0;
    double share() const { return static_cast<double>(consistent) / static_cast<double>(groups); }
};
/// Over the groups of two questions at least; questions whose group is "" belong to none. Empty if there is no such group. `right`: one a question, above 0.5 is right.
std::optional<Consistency> group_consistency(const std::vector<const std::string*>& groups, const std::vector<double>& right);

}  // namespace flanmoe
