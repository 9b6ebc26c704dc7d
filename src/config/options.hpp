// The table of options: every key of a config file with the place of its value, its range and its help. Nothing else in the program knows a key.
//
// A row holds a function that finds the value inside a Config; its type follows from the member's. Shorthands (moe.router, moe.every, and the
// routing keys of [moe] that stand for both stacks) write several places and are spelled out when a config is written.
#pragma once

#include "config/config.hpp"

#include <limits>
#include <string>
#include <variant>
#include <vector>

namespace flanmoe {

/// "relu", "gated_gelu", ...: two members behind one name.
struct ActivationField {
    Activation* kind;
    bool* gated;
};
/// moe.router: a named set of routing rules for one stack; `decoder` where it follows the encoder's name, because expert choice is for encoders.
struct PresetField {
    RoutingConfig* routing;
    bool decoder;
};
/// moe.every: every n-th layer is sparse.
struct EveryField {
    std::vector<int64_t>* sparse;
    int64_t layers;
};

/// Where a value lives. Enumerations are their byte; the row's `names` are indexed by it.
using Field = std::variant<bool*, int64_t*, double*, uint8_t*, std::string*, std::vector<int64_t>*, std::vector<double>*, std::vector<std::string>*, ActivationField,
                           PresetField, EveryField>;

struct Range {
    double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
    bool open_low = false, open_high = false;

    bool contains(double x) const { return (open_low ? x > low : x >= low) && (open_high ? x < high : x <= high); }  // false for NaN
    bool limited() const { return low > -std::numeric_limits<double>::infinity() || high < std::numeric_limits<double>::infinity(); }
    std::string text() const;  ///< "at least 1", "in [0, 1)"
};

struct Option {
    std::string key;                    ///< "section.name"
    Field (*at)(Config&);
    Range range;
    std::vector<std::string> names;     ///< allowed names, of enumerations and choices
    std::string help;
    Field (*also)(Config&) = nullptr;   ///< a second place with the same value
    bool shorthand = false;             ///< not written by to_toml
    bool may_change = false;            ///< may differ when a run directory goes on: does not change what is learned, but for rounding
};

/// All rows, in the order in which they are applied and written.
const std::vector<Option>& options();
/// Row of a key; null if there is none.
const Option* find_option(const std::string& key);

/// A value as it was read: one scalar, or a list of them, and where it stood ("file.toml:12" or "--set").
using Scalar = std::variant<bool, int64_t, double, std::string>;
struct Value {
    std::vector<Scalar> items;
    bool list = false;
    std::string where;
};

/// Writes `value` to the place or places of the option. Exit::usage for a wrong type, an unknown name or a value out of range.
void assign(Config& config, const Option& option, const Value& value);
/// The value as TOML text.
std::string format_value(const Config& config, const Option& option);
/// "integer", "list of strings", "one of relu, gelu, ...".
std::string type_text(const Option& option);

}  // namespace flanmoe
