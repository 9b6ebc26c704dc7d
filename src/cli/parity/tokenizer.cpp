// Kind tokenizer: ids of given texts, texts of those ids, ids of sentinels.
#include "cli/parity/parity.hpp"
#include "data/tokenizer.hpp"

#include <charconv>

namespace flanmoe::cli {

Computed compute_tokenizer(const ParityCase& given) {
    const auto tokenizer = Tokenizer::load(given.folder);
    Computed computed;
    for (nlohmann::json row : given.json.at("rows")) {
        const std::vector<int32_t> ids = tokenizer->encode(row.at("text").get<std::string>());
        row["ids"] = ids, row["decoded"] = tokenizer->decode(ids);
        computed.fields["rows"].push_back(row);
    }
    for (const auto& [name, id] : given.json.at("sentinels").items()) {
        constexpr std::string_view prefix = "<extra_id_";
        int64_t number = -1;
        if (name.starts_with(prefix)) std::from_chars(name.data() + prefix.size(), name.data() + name.size(), number);
        if (number < 0 || number >= tokenizer->sentinels()) given.malformed(fmt::format("there is no sentinel {}", name));
        computed.fields["sentinels"][name] = tokenizer->sentinel(number);
    }
    return computed;
}

}  // namespace flanmoe::cli
