// Templates: every construct with the text that Jinja 3.1 gives for it (recorded), what is refused by name, and all prompts of promptsource where they are.
#include "data/templates/template.hpp"

#include "../fixtures.hpp"
#include "data/byte_source.hpp"
#include "data/json_value.hpp"
#include "data/readers/reader.hpp"
#include "data/task_file.hpp"

#include <cstdlib>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

DataValue json(const std::string& text) {
    DataValue value;
    REQUIRE(JsonParser().parse(text, value) == "");
    return value;
}

std::string rendered(const std::string& text, const DataValue& fields) {
    RandomStream random({1, 0, 0, Purpose::sampling});
    return Template(text, "test").render(fields, random);
}

std::string problem(const std::string& text, const DataValue& fields) {
    try {
        rendered(text, fields);
    } catch (const RecordProblem& p) {
        return p.what;
    }
    return "no problem";
}

const char* record = R"j({"question": "Où est-il?", "label": 1, "score": 3.4, "yes": true, "nothing": null, "choices": {"text": ["sea", "nest", "sky"], "label": ["A", "B", "C"]}, "answerKey": "B",
    "texts": ["b", "a", "b"], "empty": [], "people": [{"name": "Ann"}, {"name": "Bob"}], "long": "one two. three"})j";

struct Case {
    const char* text;
    const char* expected;
};

// Recorded with Python: jinja2.Environment().from_string(text).render(**record, zip=zip), jinja2 3.1.6.
const Case cases[] = {
    {"plain", "plain"},
    {"{{ question }}!", "Où est-il?!"},
    {"{{question[0]|lower}}{{ question[1:] }}|{{ question[:2] }}|{{ question[-1] }}|{{ question[3:-1] }}", "où est-il?|Où|?|est-il"},
    {"{{ label }} {{ score }} {{ yes }} {{ nothing }}", "1 3.4 True None"},
    {"{{ choices.text[1] }}{{ choices['text'][0] }}{{ choices[\"label\"].index(answerKey) }}", "nestsea1"},
    {"{{ choices.text | join(', ') }} {{ ' or '.join(choices.text) }}", "sea, nest, sky sea or nest or sky"},
    {"{{ choices.text[choices.label.index(answerKey)] }}", "nest"},
    {"{{ choices.text.2 }}", "sky"},
    {"{% if label == 1 %}yes{% elif label == 2 %}maybe{% else %}no{% endif %}", "yes"},
    {"{% if label != 1 %}yes{% elif score > 3 and not empty %}maybe{% else %}no{%endif%}", "maybe"},
    {"{% if answerKey in choices.label and 'Z' not in choices.label %}in{% endif %}", "in"},
    {"{% if 'two' in long or false %}text{% endif %}{% if empty %}x{% endif %}", "text"},
    {"{% for c in choices.text %}{{ loop.index }}:{{ c }}{% if not loop.last %}; {% endif %}{% endfor %}", "1:sea; 2:nest; 3:sky"},
    {"{% for l, t in zip(choices.label, choices.text) %}({{ l }}) {{ t }}\n{% endfor %}", "(A) sea\n(B) nest\n(C) sky\n"},
    {"{% for k in range(choices.text | length) %}{{ k }}{% endfor %}{% for k in range(2, 4) %}{{ k }}{% endfor %}", "01223"},
    {"{% for p in people[:-1] %}{{ p.name }}{% endfor %}{{ people | map(attribute=\"name\") | list | last }}", "AnnBob"},
    {"{% set all = [] %}{% for t in texts %}{{ all.append(t) | default(\"\", True) }}{% endfor %}{{ all | join('') }}{{ all | unique | join }}{{ all | sort | join }}", "babbaabb"},
    {"{% set n = label + 1 %}{{ n }}{{ n * 2 }}{{ n - 5 }}{{ 7 // 2 }}{{ 7 % 4 }}{{ 7 / 2 }}", "24-3333.5"},
    {"{{ (((5*score) | round )/5) }} {{ score | int }} {{ '7' | int + 1 }} {{ 2.5 | round }} {{ 3.14159 | round(2) }}", "3.4 3 8 2.0 3.14"},
    {"{{ {\"A\": 0, \"B\": 1}[answerKey] }}{{ {'1': 'x'}[label | string] }}", "1x"},
    {"{{ [long, question][label] }}", "Où est-il?"},
    {"{{ long.split('. ')[1] }}{{ long.split()[0] }}{{ long | replace('one', 'two') }}{{ long.replace(' ', '_') }}", "threeonetwo two. threeone_two._three"},
    {"{{ '  a b? ' | trim }}|{{ 'a b?' | trim('?') }}|{{ ' x '.strip() }}|{{ long | trim('.e') }}", "a b?|a b|x|one two. thr"},
    {"{{ long | capitalize }} {{ 'aB' | upper }} {{ 'ÀÉ' | lower }} {{ 'straße'.upper()[:4] }}", "One two. three AB àé STRA"},
    {"{{ 'x' if label == 1 else 'y' }}{{ 'x' if label == 2 else 'y' }}", "xy"},
    {"{{ missing is defined }} {{ label is defined }} {{ nothing is none }} {{ missing | default('d') }}", "False True True d"},
    {"a {%- if label %} b {%- endif %} c{# nothing #}d\n  {{- ' e ' -}}  \nf", "a b cd e f"},
    {"{{ -label }} {{ not label }} {{ label ~ answerKey }} {{ 'a' + 'b' }} {{ [1] + [2] | length }}", "-1 False 1B ab "},
    {"{{ \"}}\" }}{{ '%}' }}{{ 'it\\'s' }}{{ \"a\\nb\" }}", "}}%}it'sa\nb"},
    {"{{ 3 == 3.0 }} {{ 'a' < 'b' }} {{ 2 >= 3 }} {{ true }} {{ none }}", "True True False True None"},
    {"{% for c in 'äb' %}<{{ c }}>{% endfor %}\n", "<ä><b>"},
};

}  // namespace

TEST_SUITE("data/templates/template") {
    TEST_CASE("constructs give what Jinja gives") {
        const DataValue fields = json(record);
        for (const Case& c : cases) {
            CAPTURE(c.text);
            if (std::string(c.text).find("[1] + [2] | length") != std::string::npos) {
                CHECK(contains(problem(c.text, fields), "computes a list + a number"));  // Python's TypeError, too
                continue;
            }
            CHECK(rendered(c.text, fields) == c.expected);
        }
    }

    TEST_CASE("filters, methods, operators and scopes with their arguments: what Jinja gives, or refused by name") {
        // Written by jinja.py beside it, which says how: the record, then a case a line.
        LineReader lines("test/data/templates/cases.jsonl");
        std::string line;
        REQUIRE(lines.next(line));
        const DataValue fields = json(line);
        int64_t given = 0, refused = 0;
        while (lines.next(line)) {
            const DataValue c = json(line);
            const std::string& text = *c.find("text")->text();
            CAPTURE(text);
            if (const DataValue* expected = c.find("expected")) {
                ++given;
                std::string ours;
                try {
                    ours = rendered(text, fields);
                } catch (const RecordProblem& p) {
                    ours = p.what;
                } catch (const Error& error) {
                    ours = error.what();
                }
                CHECK(ours == *expected->text());
            } else {
                ++refused;
                std::string told;
                try {
                    told = problem(text, fields);
                } catch (const Error& error) {
                    told = error.what();
                    CHECK(error.code == Exit::bad_data);
                }
                CHECK(told != "no problem");
            }
        }
        CHECK(given == 32);
        CHECK(refused == 60);
    }

    TEST_CASE("choice draws from the stream, evenly") {
        const Template t("{{ texts | choice }}", "test");
        const DataValue fields = json(record);
        int a = 0;
        for (uint64_t i = 0; i < 3000; ++i) {
            RandomStream random({i, 0, 0, Purpose::sampling});
            const std::string text = t.render(fields, random);
            a += text == "a";
            RandomStream again({i, 0, 0, Purpose::sampling});
            CHECK(t.render(fields, again) == text);
        }
        CHECK(std::abs(a - 1000) < 3 * 26);  // three sigma of 3000 draws at 1/3
    }

    TEST_CASE("one expression has a value of its own; names are those of the record") {
        RandomStream random({1, 0, 0, Purpose::sampling});
        CHECK(Template("{{ texts }}", "test").value(json(record), random).json() == R"(["b","a","b"])");
        CHECK(Template("{{ label }}", "test").value(json(record), random) == DataValue(1));
        CHECK(Template("{{ label }}.", "test").value(json(record), random) == DataValue("1."));
        CHECK(Template("{% set a = b %}{% for x in c %}{{ x + d[e] + a + loop.index }}{% endfor %}{{ f | join(g) }}", "test").names() == std::vector<std::string>{"b", "c", "d", "e", "f", "g"});
    }

    TEST_CASE("what is missing or of the wrong kind is named") {
        const DataValue fields = json(record);
        CHECK(contains(problem("{{ questoin }}", fields), "does not fit test, which names 'questoin', which the record does not have (it has: question, label"));
        CHECK(contains(problem("{{ choices.txt }}", fields), "asks for 'txt'"));
        CHECK(contains(problem("{{ choices }}", fields), "writes an object; join it"));
        CHECK(contains(problem("{{ texts[3] }}", fields), "asks for item 3 of 3"));
        CHECK(contains(problem("{{ texts.index('z') }}", fields), "looks for 'z' in a list that lacks it"));
        CHECK(contains(problem("{{ empty | choice }}", fields), "takes the choice of an empty list"));
        CHECK(contains(problem("{{ label / 0 }}", fields), "divides by 0"));
        CHECK(contains(problem("{{ texts + 1 }}", fields), "computes a list + a number"));
    }

    TEST_CASE("more of Jinja than there is, is refused by name") {
        const auto refusal = [](const std::string& text) { return failure(Exit::bad_data, [&] { Template(text, "here"); }); };
        CHECK(contains(refusal("{% macro a() %}{% endmacro %}"), "here, line 1 of the template: '{% macro %}' is not among the tags that are supported"));
        CHECK(contains(refusal("a\n{{ b | tojson }}"), "line 2 of the template: there is no filter 'tojson'"));
        CHECK(contains(refusal("{{ b | jion }}"), "there is no filter 'jion' (did you mean join?)"));
        CHECK(contains(refusal("{{ b.format(1) }}"), "there is no method 'format'"));
        CHECK(contains(refusal("{{ dict(a=1) }}"), "there is no function 'dict'"));
        CHECK(contains(refusal("{{ a is odd }}"), "there is no test 'is odd'"));
        CHECK(contains(refusal("{% if a %}b"), "'{% endif %}' is missing"));
        CHECK(contains(refusal("{% endif %}"), "'{% endif %}' is not among"));
        CHECK(contains(refusal("{{ a "), "'{{' is not closed"));
        CHECK(contains(refusal("{{ 'a }}"), "'{{' is not closed"));
        CHECK(contains(refusal("{{ a b }}"), "'b' is not understood there"));
        CHECK(contains(refusal("{{ a ? }}"), "'?' is not understood"));
        CHECK(contains(refusal("{{ }}"), "a name is expected before 'the end of the tag'"));
    }

    TEST_CASE("all prompts of promptsource are understood, where the files are") {
        const char* given = std::getenv("FLANMOE_DATA");
        const std::filesystem::path folder = std::filesystem::path(given ? given : "../shared/data") / "promptsource";
        if (!std::filesystem::exists(folder)) return;
        int64_t files = 0, prompts = 0;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
            if (entry.path().filename() != "templates.yaml") continue;
            ++files;
            prompts += static_cast<int64_t>(read_promptsource(entry.path()).size());
        }
        CHECK(files == 61);
        CHECK(prompts == 516);  // grep -rhE "^    jinja:" --include=templates.yaml | wc -l
    }
}
