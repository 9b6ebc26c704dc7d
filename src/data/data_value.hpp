// A value as data files and templates have it: nothing, truth, number, text, list, or object with named members in order.
//
// What JSON, YAML, TOML and the templates have in common; readers give records of it, templates compute with it. Numbers keep their kind: 3 is not 3.0.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace flanmoe {

class DataValue {
public:
    struct Member;
    using List = std::vector<DataValue>;
    using Object = std::vector<Member>;

    DataValue() = default;  ///< nothing
    DataValue(bool value) : value_(value) {}
    DataValue(int value) : value_(int64_t{value}) {}
    DataValue(int64_t value) : value_(value) {}
    DataValue(double value) : value_(value) {}
    DataValue(std::string value) : value_(std::move(value)) {}
    DataValue(std::string_view value) : value_(std::string(value)) {}
    DataValue(const char* value) : value_(std::string(value)) {}
    DataValue(List value) : value_(std::move(value)) {}
    DataValue(Object value);
    explicit DataValue(const std::vector<std::string>& texts);

    /// The value as that kind, or null.
    const bool* boolean() const { return std::get_if<bool>(&value_); }
    const int64_t* integer() const { return std::get_if<int64_t>(&value_); }
    const double* real() const { return std::get_if<double>(&value_); }
    const std::string* text() const { return std::get_if<std::string>(&value_); }
    const List* list() const { return std::get_if<List>(&value_); }
    const Object* object() const { return std::get_if<Object>(&value_); }
    List* list() { return std::get_if<List>(&value_); }
    Object* object() { return std::get_if<Object>(&value_); }
    bool nothing() const { return std::holds_alternative<std::monostate>(value_); }

    /// The member of an object; null if there is none, or no object.
    const DataValue* find(std::string_view name) const;
    /// Sets a member of an object: in its place if there is one of that name, else at the end. Nothing becomes an object.
    void set(std::string_view name, DataValue value);
    void remove(std::string_view name);

    /// "a text", "a number", ... for messages.
    const char* kind() const;
    /// Whether `as_text` gives something: texts, numbers and truths.
    bool scalar() const;
    /// A scalar as Python writes it: True, 3, 3.0, shortest digits that read back; nothing is "None"; lists and objects are their JSON.
    std::string as_text() const;
    std::string json() const;
    /// Python's notion of truth: not nothing, false, 0, or empty.
    bool truth() const;

    friend bool operator==(const DataValue& a, const DataValue& b);

private:
    std::variant<std::monostate, bool, int64_t, double, std::string, List, Object> value_;
};

struct DataValue::Member {
    std::string name;
    DataValue value;
};

/// Whether they are equal; 1 and 1.0 are.
bool operator==(const DataValue& a, const DataValue& b);

}  // namespace flanmoe
