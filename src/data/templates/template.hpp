// Templates: text with fields of a record in it, in the subset of Jinja that promptsource's files use.
//
//   {{ question }}  {{ choices.text[1] }}  {{ options | join("\n- ") }}  {% if label == 1 %}yes{% elif label == 2 %}maybe{% else %}no{% endif %}
//   {% for o in options %}({{ letters[loop.index0] }}) {{ o }}{% endfor %}  {% set n = options | length %}  {# a comment #}
//
// Expressions: texts, numbers, lists, dictionaries, fields, members (.name, ["name"]), items and slices (characters, not bytes), + - * / // % ~, comparisons, in,
// not, and, or, x if c else y, is defined; filters and methods: functions.hpp. A minus sign inside of a tag's braces takes the white space beside it away. Whatever else
// Jinja has (macros, includes, blocks, other filters) is refused by name when the template is read. Unlike in Jinja a name that the record lacks is an error.
#pragma once

#include "core/random.hpp"
#include "data/data_value.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace flanmoe {

class Template {
public:
    /// Parses `text`; `origin` says in messages where it stands. Exit::bad_data for what is no template or needs more of Jinja than there is.
    Template(std::string_view text, const std::string& origin);
    Template(Template&&) noexcept;
    Template& operator=(Template&&) noexcept;
    ~Template();

    /// The text for the fields of a record (an object); `random` is what the filter `choice` draws from. RecordProblem if a name is missing or a
    /// value of the wrong kind, with the template's origin.
    std::string render(const DataValue& fields, RandomStream& random) const;
    /// The same, but of a template that is one expression and nothing else the value itself (a list stays one).
    DataValue value(const DataValue& fields, RandomStream& random) const;

    /// Names that it takes from the record, each once, sorted.
    std::vector<std::string> names() const;
    const std::string& origin() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace flanmoe
