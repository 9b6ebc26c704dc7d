// The evaluation of a template's tree. Values of the record are referred to, not copied, until something is computed from them.
#include "data/templates/template.hpp"

#include "data/readers/reader.hpp"
#include "data/templates/functions.hpp"
#include "data/templates/operators.hpp"
#include "data/templates/syntax.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>

namespace flanmoe {

namespace {

using namespace templates;
using Kind = Expression::Kind;

class Evaluation {
public:
    Evaluation(const DataValue& fields, RandomStream& random) : fields_(fields), random_(random), scopes_(1) {}

    void run(const std::vector<Statement>& body, std::string& out) {
        for (const Statement& s : body) {
            switch (s.kind) {
                case Statement::Kind::text: out += s.text; break;
                case Statement::Kind::output: out += written(evaluate(s.tests[0])); break;
                case Statement::Kind::set: scopes_.back()[s.text] = evaluate(s.tests[0]); break;
                case Statement::Kind::loop: loop(s, out); break;
                case Statement::Kind::branch: {
                    size_t i = 0;
                    while (i < s.tests.size() && !evaluate(s.tests[i]).truth()) ++i;
                    if (i < s.bodies.size()) run(s.bodies[i], out);
                    break;
                }
            }
        }
    }

    DataValue evaluate(const Expression& e) {
        if (const DataValue* known = refer(e)) return *known;
        switch (e.kind) {
            case Kind::name: missing(e.name);
            case Kind::member: throw RecordProblem{fmt::format("asks for '{}', which the record does not have there", e.name)};
            case Kind::list: return list(e);
            case Kind::dictionary: return dictionary(e);
            case Kind::item: return item_of(evaluate(e.parts[0]), evaluate(e.parts[1]));
            case Kind::slice: return slice_of(evaluate(e.parts[0]), evaluate(e.parts[1]), evaluate(e.parts[2]));
            case Kind::call: return call(e);
            case Kind::filter: return filter(e);
            case Kind::negate: return negative(evaluate(e.parts[0]));
            case Kind::invert: return !evaluate(e.parts[0]).truth();
            case Kind::binary: return binary(e);
            case Kind::comparison: return compare(e);
            case Kind::conditional: return evaluate(e.parts[0]).truth() ? evaluate(e.parts[1]) : e.parts.size() > 2 ? evaluate(e.parts[2]) : DataValue("");
            case Kind::defined: return refer(e.parts[0]) != nullptr;
            default: return e.literal;
        }
    }

private:
    // A value that exists already: of a variable, the record, or inside of them; null if there is none or it must be computed.
    const DataValue* refer(const Expression& e) {
        if (e.kind == Kind::literal) return &e.literal;
        if (e.kind == Kind::name) {
            for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
                if (const auto found = scope->find(e.name); found != scope->end()) return &found->second;
            return fields_.find(e.name);
        }
        if (e.kind != Kind::member && e.kind != Kind::item) return nullptr;
        const DataValue* object = refer(e.parts[0]);
        if (!object) return nullptr;
        if (e.kind == Kind::member) return object->find(e.name);
        const Expression& place = e.parts[1];
        if (place.kind != Kind::literal) return nullptr;
        if (place.literal.text()) return object->find(*place.literal.text());
        const int64_t* index = place.literal.integer();
        return object->list() && index && *index >= 0 && *index < static_cast<int64_t>(object->list()->size()) ? &(*object->list())[static_cast<size_t>(*index)] : nullptr;
    }

    [[noreturn]] void missing(const std::string& name) const {
        std::string all;
        for (const DataValue::Member& member : *fields_.object()) all += (all.empty() ? "" : ", ") + member.name;
        throw RecordProblem{fmt::format("names '{}', which the record does not have (it has: {})", name, all)};
    }

    void loop(const Statement& s, std::string& out) {
        const DataValue all = apply_filter("list", evaluate(s.tests[0]), {}, random_);
        DataValue::List items;
        for (const DataValue& item : *all.list()) {
            if (s.tests.size() > 1) {
                scopes_.emplace_back();
                bind(s.names, item);
                const bool taken = evaluate(s.tests[1]).truth();
                scopes_.pop_back();
                if (!taken) continue;
            }
            items.push_back(item);
        }
        const auto count = static_cast<int64_t>(items.size());
        for (int64_t i = 0; i < count; ++i) {
            scopes_.emplace_back();  // what an item's turn sets is gone in the next
            scopes_.back()["loop"] = DataValue::Object{{"index", i + 1}, {"index0", i}, {"first", i == 0}, {"last", i + 1 == count}, {"length", count}};
            bind(s.names, items[static_cast<size_t>(i)]);
            run(s.bodies[0], out);
            scopes_.pop_back();
        }
    }
    void bind(const std::vector<std::string>& names, const DataValue& item) {
        if (names.size() == 1) {
            scopes_.back()[names[0]] = item;
            return;
        }
        if (!item.list() || item.list()->size() != names.size()) throw RecordProblem{fmt::format("binds {} names to an item that is {}", names.size(), item.kind())};
        for (size_t n = 0; n < names.size(); ++n) scopes_.back()[names[n]] = (*item.list())[n];
    }

    DataValue list(const Expression& e) {
        DataValue::List all;
        for (const Expression& part : e.parts) all.push_back(evaluate(part));
        return all;
    }
    DataValue dictionary(const Expression& e) {
        DataValue object{DataValue::Object{}};
        for (size_t i = 0; i < e.parts.size(); i += 2) {
            const DataValue name = evaluate(e.parts[i]);
            if (!name.text()) throw RecordProblem{fmt::format("names a member of a dictionary by {}; here names are texts", name.kind())};
            object.set(*name.text(), evaluate(e.parts[i + 1]));
        }
        return object;
    }
    Arguments arguments(const Expression& e) {
        Arguments a;
        const size_t named = e.parts.size() - e.keywords.size();
        for (size_t i = 1; i < e.parts.size(); ++i) {
            if (i < named)
                a.values.push_back(evaluate(e.parts[i]));
            else
                a.keywords.emplace_back(e.keywords[i - named], evaluate(e.parts[i]));
        }
        return a;
    }
    DataValue filter(const Expression& e) {
        if (e.name != "default" || !absent(e.parts[0])) return apply_filter(e.name, evaluate(e.parts[0]), arguments(e), random_);
        const Arguments a = arguments(e);
        const DataValue* otherwise = a.find(0, "default_value");
        return otherwise ? *otherwise : DataValue("");
    }
    // What Jinja calls undefined: a name or member that is not there, a condition that fails and has no else.
    bool absent(const Expression& e) {
        if (e.kind == Kind::name) return !refer(e);
        if (e.kind == Kind::member) return refer(e.parts[0]) && !refer(e);
        return e.kind == Kind::conditional && e.parts.size() == 2 && !evaluate(e.parts[0]).truth();
    }
    static DataValue negative(const DataValue& value) { return value.real() ? DataValue(-*value.real()) : apply_operator("-", DataValue(0), value); }
    // a < b < c: each with the one before it, each computed once, until one is not so.
    DataValue compare(const Expression& e) {
        DataValue left = evaluate(e.parts[0]);
        for (size_t i = 0; i < e.keywords.size(); ++i) {
            DataValue right = evaluate(e.parts[i + 1]);
            if (!apply_operator(e.keywords[i], left, right).truth()) return false;
            left = std::move(right);
        }
        return true;
    }
    DataValue call(const Expression& e) {
        const Expression& object = e.parts[0];
        if (object.kind == Kind::literal && object.literal.nothing()) return apply_function(e.name, arguments(e));
        if (e.name == "append") {  // changes a variable, gives nothing
            for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
                if (const auto found = scope->find(object.name); object.kind == Kind::name && found != scope->end() && found->second.list()) {
                    const Arguments a = arguments(e);
                    if (a.values.size() != 1) throw RecordProblem{"appends other than one value"};
                    found->second.list()->push_back(a.values[0]);
                    return {};
                }
            throw RecordProblem{"appends to something that is no list of its own (set x = [])"};
        }
        return apply_method(e.name, evaluate(object), arguments(e));
    }
    DataValue binary(const Expression& e) {
        if (e.name == "and" || e.name == "or") {
            DataValue left = evaluate(e.parts[0]);
            return left.truth() == (e.name == "or") ? left : evaluate(e.parts[1]);
        }
        return apply_operator(e.name, evaluate(e.parts[0]), evaluate(e.parts[1]));
    }

    const DataValue& fields_;
    RandomStream& random_;
    std::deque<std::map<std::string, DataValue>> scopes_;
};

void collect(const Expression& e, const std::set<std::string>& bound, std::set<std::string>& names) {
    if (e.kind == Kind::name && !bound.contains(e.name)) names.insert(e.name);
    if (e.kind == Kind::defined) return;
    for (const Expression& part : e.parts) collect(part, bound, names);
}

void collect(const std::vector<Statement>& body, std::set<std::string>& bound, std::set<std::string>& names) {
    for (const Statement& s : body) {
        const bool loop = s.kind == Statement::Kind::loop;
        for (size_t i = 0; i < s.tests.size(); ++i)
            if (!loop || i == 0) collect(s.tests[i], bound, names);
        if (s.kind == Statement::Kind::set) bound.insert(s.text);
        std::set<std::string> inner = bound;
        if (loop && s.tests.size() > 1) {
            inner.insert(s.names.begin(), s.names.end());
            collect(s.tests[1], inner, names);
        }
        if (loop) {
            inner.insert("loop");
            inner.insert(s.names.begin(), s.names.end());
        }
        for (const std::vector<Statement>& part : s.bodies) collect(part, inner, names);
        if (s.kind == Statement::Kind::branch) bound = inner;
    }
}

}  // namespace

struct Template::State {
    std::vector<Statement> body;
    std::string origin;

    template <class Work>
    auto guarded(Work&& work) const {
        try {
            return work();
        } catch (const RecordProblem& problem) {
            throw RecordProblem{fmt::format("does not fit {}, which {}", origin, problem.what)};
        }
    }
};

Template::Template(std::string_view text, const std::string& origin) : state_(std::make_unique<State>()) {
    state_->body = parse(text, origin);
    state_->origin = origin;
}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

std::string Template::render(const DataValue& fields, RandomStream& random) const {
    return state_->guarded([&] {
        std::string out;
        Evaluation(fields, random).run(state_->body, out);
        return out;
    });
}

DataValue Template::value(const DataValue& fields, RandomStream& random) const {
    if (state_->body.size() != 1 || state_->body[0].kind != Statement::Kind::output) return render(fields, random);
    return state_->guarded([&] { return Evaluation(fields, random).evaluate(state_->body[0].tests[0]); });
}

std::vector<std::string> Template::names() const {
    std::set<std::string> bound, names;
    collect(state_->body, bound, names);
    return {names.begin(), names.end()};
}

const std::string& Template::origin() const { return state_->origin; }

}  // namespace flanmoe
