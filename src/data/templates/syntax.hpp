// Syntax trees of templates, and the parser.
#pragma once

#include "data/data_value.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flanmoe::templates {

struct Expression {
    enum class Kind : uint8_t { literal, name, list, dictionary, member, item, slice, call, filter, negate, invert, binary, comparison, conditional, defined };
    Kind kind = Kind::literal;
    DataValue literal;
    std::string name;  ///< of a name, member, function, method, filter; operator of a binary one; argument name of a keyword argument
    std::vector<Expression> parts;  ///< operands; slice: value, from, to (literal nothing = open); call: object (literal nothing = a function), arguments; dictionary: keys and
                                    ///< values in turn; conditional: condition, then, perhaps else; keyword arguments come last
    std::vector<std::string> keywords;  ///< call, filter: names of the last arguments; comparison: the operators between its operands
};

struct Statement {
    enum class Kind : uint8_t { text, output, branch, loop, set };
    Kind kind = Kind::text;
    std::string text;                 ///< text; set: the name
    std::vector<std::string> names;   ///< loop: what its items are bound to
    std::vector<Expression> tests;    ///< output, set, loop: the expression, and what of its items is taken; branch: conditions
    std::vector<std::vector<Statement>> bodies;  ///< branch: one for each condition, and one for else if there is one; loop: one
};

/// Exit::bad_data with the origin, the line inside the template, and what is not understood.
std::vector<Statement> parse(std::string_view text, const std::string& origin);

}  // namespace flanmoe::templates
