// TOML files to values, with the line of every member: declarations of tasks and mixtures.
#pragma once

#include "data/data_value.hpp"

#include <filesystem>
#include <string>
#include <vector>

namespace flanmoe {

/// A table of a declaration, read key by key: what is asked for is known, what is left over is refused with the nearest name.
class Declaration {
public:
    /// Exit::missing_input, Exit::usage (file and line) if it is no TOML.
    explicit Declaration(const std::filesystem::path& path);

    bool has(const std::string& key) const { return table_.find(key) != nullptr; }
    /// The value if the key is there; Exit::usage with file, line and what is wanted if it is of another kind.
    std::string text(const std::string& key, const std::string& otherwise = "");
    int64_t integer(const std::string& key, int64_t otherwise, int64_t least = 0);
    double number(const std::string& key, double otherwise, double low, double high);
    bool truth(const std::string& key, bool otherwise);
    /// A list of texts, or one text.
    std::vector<std::string> texts(const std::string& key);
    /// The value as it stands; nothing if there is none.
    DataValue any(const std::string& key);
    /// A table, or an empty one; an array of tables ([[key]]).
    Declaration table(const std::string& key);
    std::vector<Declaration> tables(const std::string& key);
    /// All keys of the table, in order of their names; they count as known.
    std::vector<std::string> keys();

    /// Exit::usage for a key that was never asked for.
    void finish() const;
    uint64_t hash() const;  ///< of everything in the table
    /// "file:12" of a key, or of the table itself.
    std::string where(const std::string& key = "") const;
    /// This one with the members of `other` in place of those of the same name.
    Declaration with(const Declaration& other) const;
    void remove(const std::string& key) { table_.remove(key); }
    /// In all texts: `pattern` as a whole becomes `path`, and "{file}" becomes `stem`.
    void substitute(const std::string& pattern, const std::string& path, const std::string& stem);

private:
    Declaration() = default;
    [[noreturn]] void wrong(const std::string& key, const std::string& wanted) const;

    DataValue table_;
    DataValue lines_;  ///< of the members, in the same shape; "" = the table's own
    std::string file_;
    std::vector<std::string> known_;
};

}  // namespace flanmoe
