// Lines of JSON: the fields of one object, with errors that say what is wrong instead of where the parser was.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

/// Parser for one line after another; keeps its buffers. Not for several threads at once.
class JsonLine {
public:
    JsonLine();
    ~JsonLine();
    JsonLine(const JsonLine&) = delete;

    /// Parses `line`; empty if it is a JSON object, otherwise what is wrong with it ("is not valid JSON", "is not a JSON object").
    std::string parse(std::string_view line);

    enum class Kind { missing, text, list, other };
    struct Field {
        Kind kind = Kind::missing;
        std::vector<std::string> texts;  ///< one for text, all for a list of texts
    };
    /// Field of the object parsed last: a text, a list of texts, or `other` for any other type (a list with anything but texts included); null
    /// counts as missing.
    Field field(std::string_view key) const;
    std::vector<std::string> keys() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace flanmoe
