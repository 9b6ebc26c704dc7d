// See the header.
#include "data/data_value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace flanmoe {

namespace {

// As Python's repr: the shortest digits that read back, with a point in them.
std::string real_text(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
    std::string text = fmt::format("{}", value);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
}

void write_json_text(const std::string& text, std::string& out) {
    out += '"';
    for (char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (c == '\n') {
            out += "\\n";
        } else if (const size_t escape = std::string_view("\b\f\r\t").find(c); escape != std::string_view::npos) {
            out += std::string("\\") + "bfrt"[escape];
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
        } else {
            out += c;
        }
    }
    out += '"';
}

void write_json(const DataValue& value, std::string& out) {
    if (value.nothing()) {
        out += "null";
    } else if (const bool* truth = value.boolean()) {
        out += *truth ? "true" : "false";
    } else if (const std::string* text = value.text()) {
        write_json_text(*text, out);
    } else if (const DataValue::List* list = value.list()) {
        out += '[';
        for (const DataValue& item : *list) {
            if (&item != list->data()) out += ',';
            write_json(item, out);
        }
        out += ']';
    } else if (const DataValue::Object* object = value.object()) {
        out += '{';
        for (const DataValue::Member& member : *object) {
            if (&member != object->data()) out += ',';
            write_json_text(member.name, out);
            out += ':';
            write_json(member.value, out);
        }
        out += '}';
    } else {
        out += value.as_text();
    }
}

}  // namespace

DataValue::DataValue(Object value) : value_(std::move(value)) {}

DataValue::DataValue(const std::vector<std::string>& texts) : value_(List(texts.begin(), texts.end())) {}

const DataValue* DataValue::find(std::string_view name) const {
    if (const Object* members = object())
        for (const Member& member : *members)
            if (member.name == name) return &member.value;
    return nullptr;
}

void DataValue::set(std::string_view name, DataValue value) {
    if (nothing()) value_ = Object{};
    Object& members = std::get<Object>(value_);
    for (Member& member : members)
        if (member.name == name) {
            member.value = std::move(value);
            return;
        }
    members.push_back({std::string(name), std::move(value)});
}

void DataValue::remove(std::string_view name) {
    if (Object* members = object()) std::erase_if(*members, [&](const Member& member) { return member.name == name; });
}

const char* DataValue::kind() const {
    static constexpr const char* names[] = {"nothing", "true or false", "a number", "a number", "a text", "a list", "an object"};
    return names[value_.index()];
}

bool DataValue::scalar() const { return boolean() || integer() || real() || text(); }

std::string DataValue::as_text() const {
    if (nothing()) return "None";
    if (const bool* value = boolean()) return *value ? "True" : "False";
    if (const int64_t* value = integer()) return fmt::format("{}", *value);
    if (const double* value = real()) return real_text(*value);
    if (const std::string* value = text()) return *value;
    return json();
}

std::string DataValue::json() const {
    std::string out;
    write_json(*this, out);
    return out;
}

bool DataValue::truth() const {
    if (nothing()) return false;
    if (const bool* value = boolean()) return *value;
    if (const int64_t* value = integer()) return *value != 0;
    if (const double* value = real()) return *value != 0;
    if (const std::string* value = text()) return !value->empty();
    if (const List* value = list()) return !value->empty();
    return !object()->empty();
}

bool operator==(const DataValue& a, const DataValue& b) {
    const auto number = [](const DataValue& value, double& as_real) {
        if (const bool* truth = value.boolean()) return as_real = *truth, true;
        if (const int64_t* whole = value.integer()) return as_real = static_cast<double>(*whole), true;
        if (const double* real = value.real()) return as_real = *real, true;
        return false;
    };
    if (a.integer() && b.integer()) return *a.integer() == *b.integer();
    double x = 0, y = 0;
    if (number(a, x) && number(b, y)) return x == y;
    if (a.text() && b.text()) return *a.text() == *b.text();
    if (a.list() && b.list()) return *a.list() == *b.list();
    if (a.object() && b.object())  // in any order
        return a.object()->size() == b.object()->size() && std::all_of(a.object()->begin(), a.object()->end(), [&](const DataValue::Member& m) {
                   const DataValue* other = b.find(m.name);
                   return other && *other == m.value;
               });
    return a.nothing() && b.nothing();
}

}  // namespace flanmoe
