// See the header.
#include "data/templates/operators.hpp"

#include "data/readers/reader.hpp"
#include "data/templates/characters.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

namespace flanmoe::templates {

namespace {

[[noreturn]] void refuse(const std::string& what) { throw RecordProblem{what}; }

std::optional<int64_t> whole_of(const DataValue& value) {
    if (const int64_t* whole = value.integer()) return *whole;
    if (const bool* truth = value.boolean()) return int64_t{*truth};
    return std::nullopt;
}

int64_t truncated(double number) {
    if (!(std::abs(number) < 9.2e18)) refuse(fmt::format("makes an integer of {}", number));
    return static_cast<int64_t>(number);
}

// What Python's int() and float() take away: white space around, an underscore between two digits. "" if there is one elsewhere.
std::string plain_number(const std::string& text) {
    const std::string all = stripped(text, nullptr);
    std::string plain;
    const auto digit = [&](size_t i) { return i < all.size() && std::isdigit(static_cast<unsigned char>(all[i])); };
    for (size_t i = 0; i < all.size(); ++i) {
        if (all[i] == '_' && !(i > 0 && digit(i - 1) && digit(i + 1))) return "";
        if (all[i] != '_') plain += all[i];
    }
    return plain;
}

DataValue whole_arithmetic(const std::string& name, int64_t x, int64_t y) {
    int64_t result = 0;
    bool over = false;
    if (name == "+") {
        over = __builtin_add_overflow(x, y, &result);
    } else if (name == "-") {
        over = __builtin_sub_overflow(x, y, &result);
    } else if (name == "*") {
        over = __builtin_mul_overflow(x, y, &result);
    } else {
        over = y == -1 && x == INT64_MIN;
        if (!over) {
            const int64_t rest = x % y, adjust = rest != 0 && (rest < 0) != (y < 0);
            result = name == "//" ? x / y - adjust : rest + adjust * y;
        }
    }
    if (over) refuse(fmt::format("computes {} {} {}, which needs more than 64 bits", x, name, y));
    return result;
}

DataValue real_arithmetic(const std::string& name, double x, double y) {
    if (name == "+") return x + y;
    if (name == "-") return x - y;
    if (name == "*") return x * y;
    if (name == "/") return x / y;
    double rest = std::fmod(x, y);
    if (rest != 0 && (rest < 0) != (y < 0)) rest += y;
    if (name == "%") return rest != 0 ? rest : std::copysign(0.0, y);
    return std::round((x - rest) / y);
}

DataValue arithmetic(const std::string& name, const DataValue& a, const DataValue& b) {
    if (name == "+" && a.text() && b.text()) return *a.text() + *b.text();
    if (name == "+" && a.list() && b.list()) {
        DataValue::List both = *a.list();
        both.insert(both.end(), b.list()->begin(), b.list()->end());
        return both;
    }
    double x = 0, y = 0;
    if (!number_of(a, x) || !number_of(b, y)) refuse(fmt::format("computes {} {} {}", a.kind(), name, b.kind()));
    if ((name == "/" || name == "//" || name == "%") && y == 0) refuse("divides by 0");
    const auto whole_a = whole_of(a), whole_b = whole_of(b);
    if (whole_a && whole_b && name != "/") return whole_arithmetic(name, *whole_a, *whole_b);
    return real_arithmetic(name, x, y);
}

bool holds(const DataValue& value, const DataValue& part) {
    if (value.text()) {
        if (!part.text()) refuse(fmt::format("looks for {} in a text", part.kind()));
        return value.text()->find(*part.text()) != std::string::npos;
    }
    if (value.object()) return part.text() && value.find(*part.text());
    if (!value.list()) refuse(fmt::format("looks into {}, which is no list", value.kind()));
    return std::find(value.list()->begin(), value.list()->end(), part) != value.list()->end();
}

}  // namespace

bool number_of(const DataValue& value, double& number) {
    if (const auto whole = whole_of(value)) return number = static_cast<double>(*whole), true;
    if (const double* real = value.real()) return number = *real, true;
    return false;
}

bool python_int(const DataValue& value, int64_t& whole) {
    if (const auto exact = whole_of(value)) return whole = *exact, true;
    if (const double* real = value.real()) return whole = truncated(*real), true;
    if (!value.text()) return false;
    const std::string text = plain_number(*value.text());
    const size_t digits = text.starts_with('-') || text.starts_with('+');
    if (text.size() == digits || !std::all_of(text.begin() + static_cast<std::ptrdiff_t>(digits), text.end(), [](unsigned char c) { return std::isdigit(c); })) return false;
    errno = 0;
    whole = std::strtoll(text.c_str(), nullptr, 10);
    if (errno == ERANGE) refuse(fmt::format("makes an integer of {}", text));
    return true;
}

bool python_float(const DataValue& value, double& real) {
    if (number_of(value, real)) return true;
    if (!value.text()) return false;
    std::string text = lower(plain_number(*value.text()));
    if (text.empty() || text.find_first_of("x(") != std::string::npos) return false;  // strtod() reads hexadecimal numbers, Python does not
    char* end = nullptr;
    real = std::strtod(text.c_str(), &end);
    return *end == 0;
}

DataValue rounded(const DataValue& value, int64_t digits) {
    if (const auto whole = whole_of(value)) return *whole;
    if (!value.real()) refuse(fmt::format("rounds {}", value.kind()));
    if (!std::isfinite(*value.real())) return value;
    char text[700];  // the C library rounds the exact binary value, ties to even, as Python does
    std::snprintf(text, sizeof text, "%.*f", static_cast<int>(std::min<int64_t>(digits, 340)), *value.real());
    return std::strtod(text, nullptr);
}

bool less(const DataValue& a, const DataValue& b) {
    const auto whole_a = whole_of(a), whole_b = whole_of(b);
    if (whole_a && whole_b) return *whole_a < *whole_b;
    double x = 0, y = 0;
    if (number_of(a, x) && number_of(b, y)) return x < y;
    if (a.text() && b.text()) return *a.text() < *b.text();
    refuse(fmt::format("compares {} with {}", a.kind(), b.kind()));
}

DataValue apply_operator(const std::string& name, const DataValue& a, const DataValue& b) {
    if (name == "==") return a == b;
    if (name == "!=") return !(a == b);
    if (name == "in") return holds(b, a);
    if (name == "not in") return !holds(b, a);
    if (name == "<") return less(a, b);
    if (name == ">") return less(b, a);
    if (name == "<=") return less(a, b) || a == b;
    if (name == ">=") return less(b, a) || a == b;
    if (name == "~") return written(a) + written(b);
    return arithmetic(name, a, b);
}

std::string written(const DataValue& value) {
    if (value.list() || value.object()) refuse(fmt::format("writes {}; join it, or take an item", value.kind()));
    return value.as_text();
}

}  // namespace flanmoe::templates
