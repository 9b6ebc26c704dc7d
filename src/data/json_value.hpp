// JSON text to values (simdjson inside).
#pragma once

#include "data/data_value.hpp"

#include <memory>
#include <string>
#include <string_view>

namespace flanmoe {

/// Parser for one text after another; keeps its buffers. Not for several threads at once.
class JsonParser {
public:
    JsonParser();
    ~JsonParser();
    JsonParser(const JsonParser&) = delete;

    /// Parses `text`; empty if it is one JSON value, otherwise what is wrong ("is not valid JSON (...)"). Unsigned integers that need all 64 bits come as texts.
    std::string parse(std::string_view text, DataValue& value);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace flanmoe
