// Kind metrics: exact match, token F1 and ROUGE of given predictions, each row and the mean.
#include "cli/parity/parity.hpp"
#include "eval/text_metrics.hpp"

namespace flanmoe::cli {

Computed compute_metrics(const ParityCase& given) {
    Computed computed;
    std::map<std::string, double> sums;
    const nlohmann::json& rows = given.json.at("rows");
    if (!rows.is_array() || rows.empty()) given.malformed("\"rows\" has no entries");
    for (nlohmann::json row : rows) {
        const auto targets = row.at("targets").get<std::vector<std::string>>();
        if (targets.empty()) given.malformed("a row has no targets");
        const TextScores scores = score_text(row.at("prediction").get<std::string>(), targets);
        const std::map<std::string, double> named = {
            {"exact_match", scores.exact_match}, {"f1", scores.f1}, {"rouge1", scores.rouge1}, {"rouge2", scores.rouge2}, {"rougeL", scores.rouge_l}};
        for (const auto& [name, value] : named) row[name] = value, sums[name] += value;
        computed.fields["rows"].push_back(row);
    }
    for (const auto& [name, sum] : sums) computed.fields["mean"][name] = sum / static_cast<double>(rows.size());
    return computed;
}

}  // namespace flanmoe::cli
