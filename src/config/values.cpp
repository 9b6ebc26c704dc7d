// Values of options: checked conversion from what a file says to the member of the config, and back to TOML text.
#include "config/options.hpp"
#include "config/routers/routers.hpp"
#include "core/error.hpp"
#include "core/nearest.hpp"

#include <algorithm>
#include <array>

namespace flanmoe {

namespace {

template <class... Cases>
struct Overloaded : Cases... {
    using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

struct ActivationName {
    Activation kind;
    bool gated;
};
// In the order of the table's names; "gelu" alone is the erf form and "gated_gelu" the tanh form, as in Hugging Face's configs.
constexpr std::array<ActivationName, 8> activation_names = {{{Activation::relu, false},
                                                             {Activation::gelu_tanh, false},
                                                             {Activation::gelu_erf, false},
                                                             {Activation::silu, false},
                                                             {Activation::relu, true},
                                                             {Activation::gelu_tanh, true},
                                                             {Activation::gelu_erf, true},
                                                             {Activation::silu, true}}};

std::string show(const Scalar& scalar) {
    return std::visit(Overloaded{[](bool b) -> std::string { return b ? "true" : "false"; }, [](int64_t i) { return std::to_string(i); },
                                 [](double d) { return fmt::format("{}", d); }, [](const std::string& s) { return "\"" + s + "\""; }},
                      scalar);
}

std::string show(const Value& value) {
    if (!value.list) return show(value.items.at(0));
    std::string text;
    for (const Scalar& item : value.items) text += (text.empty() ? "" : ", ") + show(item);
    return "[" + text + "]";
}

// Converts the value for one option; every check and message is here.
class Reader {
public:
    Reader(const Option& option, const Value& value) : option_(option), value_(value) {}

    [[noreturn]] void wrong_type() const { fail(Exit::usage, "{}: {} must be {}, not {}", value_.where, option_.key, type_text(option_), show(value_)); }

    const Scalar& single() const {
        if (value_.list) wrong_type();
        return value_.items.at(0);
    }
    double number(const Scalar& scalar) const {
        double x = 0;
        if (const double* d = std::get_if<double>(&scalar))
            x = *d;
        else if (const int64_t* i = std::get_if<int64_t>(&scalar))
            x = static_cast<double>(*i);
        else
            wrong_type();
        check_range(x);
        return x;
    }
    int64_t integer(const Scalar& scalar) const {
        const int64_t* i = std::get_if<int64_t>(&scalar);
        if (!i) wrong_type();
        check_range(static_cast<double>(*i));
        return *i;
    }
    const std::string& text(const Scalar& scalar) const {
        const std::string* s = std::get_if<std::string>(&scalar);
        if (!s) wrong_type();
        return *s;
    }
    /// A value with names: its position in the table's list.
    size_t name() const { return name(single()); }
    size_t name(const Scalar& scalar) const {
        const std::string& given = text(scalar);
        const auto found = std::find(option_.names.begin(), option_.names.end(), given);
        if (found == option_.names.end())
            fail(Exit::usage, "{}: {} must be {}, not \"{}\"{}", value_.where, option_.key, type_text(option_), given, suggestion(given, option_.names));
        return static_cast<size_t>(found - option_.names.begin());
    }

private:
    void check_range(double x) const {
        // Infinity and NaN are TOML floats but no setting of ours.
        if (!(x - x == 0) || !option_.range.contains(x))
            fail(Exit::usage, "{}: {} must be {}, not {}", value_.where, option_.key, option_.range.limited() ? option_.range.text() : "finite", x);
    }
    const Option& option_;
    const Value& value_;
};

void assign_field(const Field& field, const Option& option, const Value& value) {
    const Reader read(option, value);
    // A list accepts a single value: `--set data.train=corpus` is what people type.
    std::visit(Overloaded{
                   [&](bool* p) {
                       const bool* b = std::get_if<bool>(&read.single());
                       if (!b) read.wrong_type();
                       *p = *b;
                   },
                   [&](int64_t* p) { *p = read.integer(read.single()); },
                   [&](double* p) { *p = read.number(read.single()); },
                   [&](uint8_t* p) { *p = static_cast<uint8_t>(read.name()); },
                   [&](std::string* p) { *p = option.names.empty() ? read.text(read.single()) : option.names[read.name()]; },
                   [&](std::vector<int64_t>* p) {
                       p->clear();
                       for (const Scalar& item : value.items) p->push_back(read.integer(item));
                   },
                   [&](std::vector<double>* p) {
                       p->clear();
                       for (const Scalar& item : value.items) p->push_back(read.number(item));
                   },
                   [&](std::vector<std::string>* p) {
                       p->clear();
                       for (const Scalar& item : value.items) p->push_back(option.names.empty() ? read.text(item) : option.names[read.name(item)]);
                   },
                   [&](const ActivationField& p) {
                       const ActivationName& chosen = activation_names[read.name()];
                       *p.kind = chosen.kind;
                       *p.gated = chosen.gated;
                   },
                   [&](const PresetField& p) { *p.routing = named_routers()[read.name()].settings(p.decoder); },
                   [&](const EveryField& p) {
                       const int64_t every = read.integer(read.single());
                       p.sparse->clear();
                       for (int64_t i = every - 1; every > 0 && i < p.layers; i += every) p.sparse->push_back(i);
                   },
               },
               field);
}

std::string toml_string(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\')
            out += {'\\', c};
        else if (byte < 0x20 || byte == 0x7f)
            out += fmt::format("\\u{:04x}", byte);
        else
            out += c;
    }
    return out + "\"";
}

std::string show_double(double x) {
    std::string text = fmt::format("{}", x);  // the shortest text that reads back to the same bits
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
}

template <class T, class Show>
std::string show_list(const std::vector<T>& items, Show show_item) {
    std::string text;
    for (const T& item : items) text += (text.empty() ? "" : ", ") + show_item(item);
    return "[" + text + "]";
}

}  // namespace

void assign(Config& config, const Option& option, const Value& value) {
    assign_field(option.at(config), option, value);
    if (option.also) assign_field(option.also(config), option, value);
}

std::string format_value(const Config& config, const Option& option) {
    Config copy = config;  // fields are pointers to what may be written
    const Field field = option.at(copy);
    return std::visit(Overloaded{
                          [](bool* p) -> std::string { return *p ? "true" : "false"; },
                          [](int64_t* p) { return std::to_string(*p); },
                          [](double* p) { return show_double(*p); },
                          [&](uint8_t* p) { return toml_string(option.names.at(*p)); },
                          [](std::string* p) { return toml_string(*p); },
                          [](std::vector<int64_t>* p) { return show_list(*p, [](int64_t i) { return std::to_string(i); }); },
                          [](std::vector<double>* p) { return show_list(*p, show_double); },
                          [](std::vector<std::string>* p) { return show_list(*p, toml_string); },
                          [&](const ActivationField& p) {
                              for (size_t i = 0; i < activation_names.size(); ++i)
                                  if (activation_names[i].kind == *p.kind && activation_names[i].gated == *p.gated) return toml_string(option.names[i]);
                              require(false, "an activation with a name");
                              return std::string();
                          },
                          [](const PresetField&) { return std::string(); },
                          [](const EveryField&) { return std::string(); },
                      },
                      field);
}

std::string type_text(const Option& option) {
    Config scratch;
    if (!option.names.empty()) {
        std::string text;
        for (const std::string& name : option.names) text += (text.empty() ? "" : ", ") + name;
        return (std::holds_alternative<std::vector<std::string>*>(option.at(scratch)) ? "a list of " : "one of ") + text;
    }
    const std::string type = std::visit(
        Overloaded{[](bool*) { return "true or false"; }, [](int64_t*) { return "an integer"; }, [](double*) { return "a number"; }, [](std::string*) { return "a string"; },
                   [](std::vector<int64_t>*) { return "a list of integers"; }, [](std::vector<double>*) { return "a list of numbers"; },
                   [](std::vector<std::string>*) { return "a list of strings"; }, [](const EveryField&) { return "an integer"; }, [](const auto&) { return "a name"; }},
        option.at(scratch));
    return option.range.limited() ? type + " " + option.range.text() : type;
}

}  // namespace flanmoe
