// Tasks as data: what a declaration gives, example by example; what is wrong with one, with file, line and nearest name.
#include "data/task_file.hpp"

#include "core/file.hpp"
#include "fixtures.hpp"

#include <set>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

const char* choice_task = R"(
name = "birds"
reader = "arc"
metric = "accuracy"
category = "science"
exemplars = "train"
options = "{{ options }}"
answer = "{{ answer }}"
[files]
train = ["arc.jsonl"]
test = ["more*.jsonl"]
[fields]
shout = "{{ question | upper }}"
[[template]]
name = "options"
inputs = "{{ shout }}\n\n{{ options_ }}"
targets = "{{ answer }}"
[[template]]
name = "ask back"
inverted = true
inputs = "What has the answer {{ answer }}?"
targets = "{{ question }}"
)";

struct Folder {
    TemporaryFolder data;
    Folder() {
        for (const auto& entry : std::filesystem::directory_iterator("test/data/readers/files"))
            if (entry.is_regular_file()) std::filesystem::copy(entry.path(), data.path() / entry.path().filename());
        std::filesystem::copy(data / "arc.jsonl", data / "more1.jsonl");
    }
    std::string write(const std::string& text, const std::string& name = "task.toml") const {
        write_bytes(data / name, text);
        return (data / name).string();
    }
    std::vector<std::shared_ptr<const Task>> load(const std::string& text) const { return load_tasks({write(text)}, data.path()); }
    std::string refusal(const std::string& text, Exit code = Exit::usage) const {
        return failure(code, [&] { load(text); });
    }
    /// The task with one line replaced.
    std::string changed(const std::string& from, const std::string& to) const {
        std::string text = choice_task;
        const size_t at = text.find(from);
        REQUIRE(at != std::string::npos);
        return text.replace(at, from.size(), to);
    }
};

const char* prompts = R"(dataset: made_up
templates:
  a1: !Template
    answer_choices: '{{ choices.text | join("|||") }}'
    id: a1
    jinja: 'Which of {{ answer_choices | join(" or ") }}: {{ stem }} |||

      {% if key %}{{ answer_choices[choices.label.index(key)] }}{% endif %}'
    metadata: !TemplateMetadata
      original_task: true
    name: which
    reference: ''
  a2: !Template
    answer_choices: null
    id: a2
    jinja: '{{ stem }} is a question with ||| {{ stem | length }} letters'
    metadata: !TemplateMetadata
      original_task: false
    name: letters
    reference: ''
)";

}  // namespace

TEST_SUITE("data/task_file") {
    TEST_CASE("a task reads its splits and asks with and without options") {
        const Folder folder;
        const auto tasks = folder.load(choice_task);
        REQUIRE(tasks.size() == 1);
        const Task& task = *tasks[0];
        CHECK(task.language == "en");
        CHECK(task.has_split("test"));
        const auto records = task.read("train");
        REQUIRE(records.size() == 2);
        const auto with = task.render(records[0], 0, true), without = task.render(records[0], 0, false);
        CHECK(with->inputs == "WHICH FLIES?\n\nOPTIONS:\n- stone\n- wren");
        CHECK(without->inputs == "WHICH FLIES?");
        CHECK(with->targets == std::vector<std::string>{"wren"});
        CHECK(with->options == std::vector<std::string>{"stone", "wren"});
        CHECK(with->task == "birds");
        CHECK(with->line == 1);
        CHECK(task.templates[0].shows_options);
        CHECK(task.templates[1].inverted);
        CHECK(task.render(records[1], 1, true)->inputs == "What has the answer carp?");
        CHECK(task.read("test").size() == 2);
        CHECK(contains(failure(Exit::usage, [&] { task.read("dev"); }), "has no split 'dev'; it has: test, train"));
        const auto lettered = folder.load(folder.changed("exemplars", "options_style = \"letters\"\nexemplars"))[0];
        CHECK(lettered->render(records[0], 0, true)->inputs == "WHICH FLIES?\n\nOPTIONS:\n(A) stone\n(B) wren");
    }

    TEST_CASE("families: variants, and a task of every file") {
        const Folder folder;
        const auto variants = folder.load("reader = \"gsm8k\"\n[files]\ntrain = \"gsm8k.jsonl\"\n[[template]]\ninputs = \"{{ question }}\"\ntargets = \"{{ answer }}\"\n"
                                          "[[variant]]\nname = \"a\"\n[[variant]]\nname = \"b\"\nlanguage = \"de\"\n");
        REQUIRE(variants.size() == 2);
        CHECK(variants[1]->language == "de");
        const auto files = folder.load("name = \"made/{file}\"\nreader = \"mmlu\"\neach_file = true\n[files]\ntest = \"made_up_*.csv\"\n[[template]]\ninputs = \"{{ question }}\"\ntargets = \"{{ letter }}\"\n");
        REQUIRE(files.size() == 2);
        CHECK(files[0]->name == "made/dev");
        CHECK(files[1]->read("test").size() == 2);
    }

    TEST_CASE("prompts of promptsource") {
        const Folder folder;
        write_bytes(folder.data / "prompts.yaml", prompts);
        write_bytes(folder.data / "raw.jsonl", "{\"stem\": \"What|||flies?\", \"choices\": {\"text\": [\"o|||x\", \"owl\"], \"label\": [\"A\", \"B\"]}, \"key\": \"A\"}\n"
                                               "{\"stem\": \"And\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": [\"A\", \"B\"]}, \"key\": \"\"}\n");
        const std::string declared = "name = \"p\"\nreader = \"jsonl\"\nprompts = \"prompts.yaml\"\n[files]\ntrain = \"raw.jsonl\"\n";
        const auto task = folder.load(declared)[0];
        const auto records = task->read("train");
        const auto first = task->render(records[0], 0, true);
        CHECK(first->inputs == "Which of o|||x or owl: What|||flies?");
        CHECK(first->targets == std::vector<std::string>{"o|||x"});
        CHECK(first->options == std::vector<std::string>{"o|||x", "owl"});
        CHECK_FALSE(task->render(records[1], 0, true));  // nothing to answer
        CHECK(task->render(records[1], 1, true)->targets == std::vector<std::string>{"3 letters"});
        CHECK(task->templates[1].inverted);
        CHECK(folder.load("prompt_names = [\"letters\"]\n" + declared)[0]->templates.size() == 1);
        CHECK(contains(folder.refusal("prompt_names = [\"lettres\"]\n" + declared), "has no template 'lettres' (did you mean letters?)"));
        write_bytes(folder.data / "prompts.yaml", "templates:\n  a: [1\n");
        CHECK(contains(folder.refusal(declared, Exit::bad_data), "prompts.yaml:3: not valid YAML"));
    }

    TEST_CASE("only and except choose records by id; ids are unique") {
        const Folder folder;
        write_bytes(folder.data / "ids.json", "{\"101\": \"yes\"}");
        const std::string text = "name = \"pubmed\"\nreader = \"pubmedqa\"\nanswer = \"{{ answer }}\"\n[files]\ntrain = \"pubmedqa.json\"\ntest = \"pubmedqa.json\"\n[only]\ntest = \"ids.json\"\n"
                                 "[except]\ntrain = \"ids.json\"\n[[template]]\ninputs = \"{{ question }}\"\ntargets = \"{{ answer }}\"\n";
        const auto task = folder.load(text)[0];
        REQUIRE(task->read("test").size() == 1);
        CHECK(task->read("test")[0].fields.find("id")->as_text() == "101");
        CHECK(task->read("train")[0].fields.find("id")->as_text() == "102");
        ReadCounts chosen;
        task->read("train", &chosen);
        CHECK(chosen.not_chosen == 1);
        write_bytes(folder.data / "ids.json", "[101, \"103\", \"104\"]");
        for (const char* split : {"test", "train"})
            CHECK(contains(failure(Exit::bad_data, [&] { task->read(split); }), std::string("ids.json ([") + (split[1] == 'e' ? "only" : "except") + "] of split " + split +
                                                                                      "): 2 of 3 ids are those of no record, '103' among them"));
        CHECK(folder.load("malformed = \"skip\"\n" + text)[0]->read("test", &chosen).size() == 1);
        CHECK(chosen.unknown_ids == 2);
        CHECK(contains(chosen.problems.at(0), "'103' among them"));
        write_bytes(folder.data / "ids.json", "[[101]]");
        CHECK(contains(failure(Exit::bad_data, [&] { task->read("test"); }), "ids.json holds a list, not only ids"));
        write_bytes(folder.data / "arc.jsonl", read_file(folder.data / "more1.jsonl") + read_file(folder.data / "more1.jsonl"));
        CHECK(contains(failure(Exit::bad_data, [&] { folder.load(choice_task)[0]->read("train"); }), "arc.jsonl:3 has the id 'a1' of"));
        ReadCounts counts;
        CHECK(folder.load(folder.changed("metric", "malformed = \"skip\"\nmetric"))[0]->read("train", &counts).size() == 2);
        CHECK(counts.malformed == 2);
        CHECK(folder.load(folder.changed("metric", "unique = \"\"\nmetric"))[0]->read("train").size() == 4);
    }

    TEST_CASE("portions divide a file into splits, whole groups each; groups are named") {
        const Folder folder;
        std::string lines;
        for (int i = 0; i < 400; ++i) lines += fmt::format("{{\"inputs\": \"p{} q{}\", \"targets\": \"x\", \"passage\": \"{}\"}}\n", i / 4, i, i / 4);
        write_bytes(folder.data / "lines.jsonl", lines);
        const std::string text = "name = \"t\"\nreader = \"jsonl\"\ngroup = \"p{{ passage }}\"\n[files]\ntrain = \"lines.jsonl\"\nvalidation = \"lines.jsonl\"\n[portion]\nby = \"{{ passage }}\"\n"
                                 "train = [0, 0.75]\nvalidation = [0.75, 1]\n[[template]]\ninputs = \"{{ inputs }}\"\ntargets = \"{{ targets }}\"\n";
        const auto task = folder.load(text)[0];
        std::map<std::string, std::set<std::string>> passages;
        for (const char* split : {"train", "validation"}) {
            ReadCounts counts;
            for (const Record& record : task->read(split, &counts)) passages[split].insert(record.fields.find("passage")->as_text());
            CHECK(counts.records == 4 * static_cast<int64_t>(passages[split].size()));
            CHECK(counts.records + counts.not_chosen == 400);
        }
        CHECK(passages["train"].size() + passages["validation"].size() == 100);
        CHECK(passages["train"].size() > 60);
        CHECK(passages["train"].size() < 90);
        const std::vector<Record> records = task->read("train");
        CHECK(task->render(records[0], 0, true)->group == "p" + records[0].fields.find("passage")->as_text());
        const auto changed = [&](const std::string& from, const std::string& to) { return std::string(text).replace(text.find(from), from.size(), to); };
        CHECK(folder.load(changed("by = \"{{ passage }}\"\n", ""))[0]->read("train").size() % 4 != 0);
        CHECK(contains(folder.refusal(changed("[0, 0.75]", "[0.8, 0.75]")), "0.75]; give two numbers from 0 to 1, the smaller first"));
        CHECK(contains(folder.refusal(changed("train = [0", "trian = [0")), "the portion is of 'trian', a split that task t does not have"));
    }

    TEST_CASE("declarations that are wrong") {
        const Folder folder;
        CHECK(contains(folder.refusal(folder.changed("metric", "metrci")), "task.toml:4: unknown key metrci (did you mean metric?)"));
        CHECK(contains(folder.refusal(folder.changed("\"arc\"", "\"acr\"")), "task.toml:3: there is no reader 'acr' (did you mean arc?)"));
        CHECK(contains(folder.refusal(folder.changed("{{ question }}", "{{ questoin }}")), "names the field 'questoin', which the reader arc does not give (did you mean question?)"));
        CHECK(contains(folder.refusal(folder.changed("{{ question | upper }}", "{{ query }}")), "task.toml:13: shout of task birds"));
        CHECK(contains(folder.refusal(folder.changed("exemplars = \"train\"", "exemplars = \"dev\"")), "takes exemplars from 'dev'"));
        CHECK(contains(folder.refusal(folder.changed("name = \"birds\"", "")), "a task has no name"));
        CHECK(contains(folder.refusal(folder.changed("metric = \"accuracy\"", "cap = -1")), "task.toml:4: cap must be an integer of at least 0, not -1"));
        CHECK(contains(folder.refusal(folder.changed("metric = \"accuracy\"", "metric = 3")), "task.toml:4: metric must be a text, not a number"));
        CHECK(contains(folder.refusal("name = \"x\"\nreader = \"arc\"\n[files]\na = \"b\"\n"), "task x has no template"));
        CHECK(contains(folder.refusal("name = \n"), "task.toml:1: not valid TOML"));
        CHECK(contains(folder.refusal(folder.changed("metric = \"accuracy\"", "cap = 2026-01-01")), "task.toml:4: dates and times have no meaning here"));
        CHECK(contains(folder.refusal(folder.changed("| upper", "| uper"), Exit::bad_data), "there is no filter 'uper' (did you mean upper?)"));
        folder.write(choice_task, "other.toml");
        CHECK(contains(failure(Exit::usage, [&] { load_tasks({folder.write(choice_task), (folder.data / "other.toml").string()}, folder.data.path()); }), "declares a task 'birds', which"));
        CHECK(contains(failure(Exit::bad_data, [&] { folder.load(folder.changed("options = \"{{ options }}\"", "options = [\"stone\", \"owl\"]"))[0]->read("train"); }),
                       "arc.jsonl:1 has the answer 'wren', which is none of its options: stone | owl"));
        CHECK(contains(failure(Exit::missing_input, [&] { folder.load(folder.changed("[\"arc.jsonl\"]", "[\"acr.jsonl\"]\nmore = []"))[0]->read("train"); }), "acr.jsonl does not exist; the format is arc"));
    }
}
