// Typed access to a JSON object with errors that name file, key and remedy. Included by .cpp files only.
#pragma once

#include "core/error.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string>
#include <string_view>

namespace flanmoe {

using Json = nlohmann::ordered_json;    // for writing: keys stay in the order in which they are set; slow for thousands of keys
using ParsedJson = nlohmann::json;      // for reading: sorted keys, fast for any number of them

inline ParsedJson parse_json_object(std::string_view text, const std::string& where) {
    ParsedJson object = ParsedJson::parse(text, nullptr, false);
    if (object.is_discarded() || !object.is_object()) fail(Exit::bad_checkpoint, "{} is not a JSON object; it is damaged: get it again", where);
    return object;
}

class JsonReader {
public:
    JsonReader(const ParsedJson& object, std::string where, std::string prefix = "")
        : object_(object), where_(std::move(where)), prefix_(std::move(prefix)) {}

    bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
    bool contains(const char* key) const { return object_.contains(key); }
    const ParsedJson& raw(const char* key) const { return object_[key]; }
    const std::string& where() const { return where_; }

    int64_t integer(const char* key, int64_t least, int64_t most) const {
        if (!has(key)) refuse(key, "is missing", "add it");
        const ParsedJson& value = object_[key];
        if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{1} << 62))
            refuse(key, "is not an integer", "correct it");
        const int64_t number = value.get<int64_t>();
        if (number < least || number > most) refuse(key, fmt::format("is {}", number), fmt::format("give a number from {} to {}", least, most));
        return number;
    }
    int64_t integer(const char* key, int64_t least, int64_t most, int64_t otherwise) const {
        return has(key) ? integer(key, least, most) : otherwise;
    }

    double number(const char* key, double least, double most, double otherwise) const {
        if (!has(key)) return otherwise;
        if (!object_[key].is_number()) refuse(key, "is not a number", "correct it");
        const double value = object_[key].get<double>();
        if (!(value >= least && value <= most)) refuse(key, fmt::format("is {}", value), fmt::format("give a number from {} to {}", least, most));
        return value;
    }
    bool boolean(const char* key, bool otherwise) const {
        if (!has(key)) return otherwise;
        if (!object_[key].is_boolean()) refuse(key, "is neither true nor false", "correct it");
        return object_[key].get<bool>();
    }
    std::string text(const char* key, const std::string& otherwise) const {
        if (!has(key)) return otherwise;
        if (!object_[key].is_string()) refuse(key, "is not a string", "correct it");
        return object_[key].get<std::string>();
    }
    JsonReader object(const char* key) const {
        if (!object_[key].is_object()) refuse(key, "is not an object", "correct it");
        return JsonReader(object_[key], where_, prefix_ + key + ".");
    }
    /// Every key must be one of these.
    void only(std::initializer_list<std::string_view> known) const {
        for (const auto& [key, value] : object_.items())
            if (std::find(known.begin(), known.end(), key) == known.end())
                refuse(key.c_str(), "is unknown to this version", "remove it, or use the version that wrote it");
    }
    [[noreturn]] void refuse(const char* key, const std::string& what, const std::string& remedy) const {
        fail(Exit::bad_checkpoint, "{}: {}{} {}; {}", where_, prefix_, key, what, remedy);
    }

private:
    const ParsedJson& object_;
    std::string where_, prefix_;
};

}  // namespace flanmoe
