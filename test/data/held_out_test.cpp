// Held-out items are found in training text whatever its case, spacing and punctuation; policies do what they say.
#include "data/held_out.hpp"

#include "core/file.hpp"
#include "data/mixture_source.hpp"
#include "data/templates/characters.hpp"
#include "fixtures.hpp"

#include <cstdlib>

using namespace flanmoe;
using namespace flanmoe::testing;

namespace {

/// A training task of 40 questions, of which number 7 and 9 hold an item of the evaluation task.
struct World {
    TemporaryFolder folder;
    DataConfig config;
    std::shared_ptr<const Tokenizer> tokenizer = small_tokenizer();

    explicit World(const std::string& policy) {
        std::string train;
        for (int i = 0; i < 40; ++i) {
            std::string question = synthetic_text(2, static_cast<uint64_t>(i) + 50);
            if (i == 7) question = "please note: WHERE, oh where -- has the young sheep\\n gone?";
            if (i == 9) question = "one two three four five six seven eight nine ten eleven twelve thirteen and other things";
            for (char& c : question)
                if (c == '\n') c = ' ';
            train += "{\"question\": \"" + question + "\", \"answer\": \"x\"}\n";
        }
        write_bytes(folder / "train.jsonl", train);
        write_bytes(folder / "test.jsonl", "{\"question\": \"Where, oh where has the young sheep gone?\", \"answer\": \"x\"}\n"
                                           "{\"question\": \"zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen\", \"answer\": \"x\"}\n"
                                           "{\"question\": \"Too short?\", \"answer\": \"x\"}\n{\"question\": \"nobody ever asked this strange thing\", \"answer\": \"x\"}\n");
        for (const char* name : {"train", "test"})
            write_bytes(folder / (std::string(name) + ".toml"), std::string("name = \"") + name + "\"\nreader = \"jsonl\"\n[files]\n" + name + " = \"" + name +
                                                                      ".jsonl\"\n[[template]]\ninputs = \"Q: {{ question }}\"\ntargets = \"{{ answer }}\"\n");
        write_bytes(folder / "mixture.toml", "tasks = \"train.toml\"\n[held_out]\ntasks = \"test.toml\"\npolicy = \"" + policy + "\"\n");
        config.objective = Objective::instruct;
        config.mixture = (folder / "mixture.toml").string();
        config.folder = folder.path().string();
        config.encoder_length = 512;
        config.decoder_length = 128;
    }
    MixtureFile load() const { return load_mixture({.path = folder / "mixture.toml", .folder = folder.path()}); }
    OpenMixture open() const { return open_mixture(resolve_data_config(config, *tokenizer), *tokenizer, true); }
};

/// A training file with four copies of every item of the tasks, in other words around it: as it is, in capitals, spaced otherwise, with other punctuation; all are found, and all items
/// that are long enough. `fields`: what of an item is copied. Gives the number of items found.
int64_t found_copies(const std::string& declared, const std::string& names, const std::vector<std::string>& fields, const std::string& split = "test") {
    const TemporaryFolder folder;
    const std::filesystem::path data = std::filesystem::absolute("test/data/suites"), file = std::filesystem::absolute("configs/task/" + declared);
    DataValue lines{DataValue::List{}};
    std::string training;
    for (const auto& task : load_tasks({file.string()}, data)) {
        if (!task->name.starts_with(names) || !std::filesystem::exists(task->files.at(split)[0])) continue;
        for (const Record& record : task->read(split)) {
            std::string text;
            for (const std::string& field : fields) text += (text.empty() ? "" : "\n") + *record.fields.find(field)->text();
            std::string spaced, punctuated;
            for (size_t i = 0; i < text.size(); ++i) {
                const bool inside = i > 0 && i + 1 < text.size() && !std::isspace(static_cast<unsigned char>(text[i - 1])) && !std::isspace(static_cast<unsigned char>(text[i + 1]));
                spaced += text[i] == ' ' ? std::string("  \n ") : std::string(1, text[i]);
                punctuated += std::ispunct(static_cast<unsigned char>(text[i])) && !inside ? std::string(" ~;") : text[i] == ' ' ? std::string(", ") : std::string(1, text[i]);
            }
            for (const std::string& copy : {text, templates::upper(text), spaced, punctuated})
                training += DataValue(DataValue::Object{{"text", "Some words before it. " + copy + " And some behind."}}).json() + "\n";
        }
    }
    write_bytes(folder / "train.jsonl", training);
    write_bytes(folder / "train.toml", "name = \"train\"\nreader = \"jsonl\"\nfiles = { train = \"" + (folder / "train.jsonl").string() +
                                           "\" }\n[[template]]\ninputs = \"{{ text }}\"\ntargets = \"yes\"\n");
    write_bytes(folder / "mixture.toml", "tasks = \"train.toml\"\n[held_out]\ntasks = \"" + file.string() + "\"\nsplits = [\"" + split + "\", \"train\"]\n");
    const Overlaps o = find_overlaps(load_mixture({.path = folder / "mixture.toml", .folder = data}));
    int64_t items = 0, exact = 0, too_short = 0;
    for (const Overlaps::Items& task : o.items)
        if (task.task.starts_with(names)) items += task.items, exact += task.exact, too_short += task.too_short;
    CHECK(exact + too_short >= static_cast<int64_t>(std::count(training.begin(), training.end(), '\n')) / 4);
    CHECK(4 * (static_cast<int64_t>(std::count(training.begin(), training.end(), '\n')) / 4 - too_short) <= static_cast<int64_t>(o.records[0].size()));
    return exact;
}

}  // namespace

TEST_SUITE("data/held_out") {
    TEST_CASE("copies of items are found: MMLU") { CHECK(found_copies("mmlu.toml", "mmlu/", {"question"}) > 0); }
    TEST_CASE("copies of items are found: BIG-Bench-Hard") { CHECK(found_copies("bbh.toml", "bbh/", {"input"}) > 0); }
    TEST_CASE("copies of items are found: reasoning") {
        for (const char* name : {"svamp", "asdiv", "aqua"}) CHECK_MESSAGE(found_copies("mathematics.toml", name, {"question"}) > 0, name);
        CHECK(found_copies("gsm8k.toml", "cot/gsm8k", {"question"}) > 0);
        CHECK(found_copies("questions.toml", "strategyqa", {"question"}) > 0);
    }
    TEST_CASE("copies of items are found: question answering") {
        for (const char* name : {"commonsenseqa", "arc/easy", "arc/challenge", "openbookqa"}) CHECK_MESSAGE(found_copies("questions.toml", name, {"question"}) > 0, name);
    }
    TEST_CASE("copies of items are found: TyDi QA") { CHECK(found_copies("tydiqa.toml", "tydiqa", {"question", "context"}) > 0); }
    TEST_CASE("copies of items are found: MGSM") {
        for (const char* name : {"mgsm/de", "mgsm/en", "mgsm/ja"}) CHECK_MESSAGE(found_copies("mgsm.toml", name, {"question"}) > 0, name);
    }

    TEST_CASE("words") {
        CHECK(overlap_words("  It's 3.5 -- ÉTÉ!\n1,000 owls, 20") == std::vector<std::string>{"its", "3", "5", "été", "1000", "owls", "20"});
        CHECK(overlap_words("Straße STRASSE Ὀδυσσεύς") == std::vector<std::string>{"strasse", "strasse", "ὀδυσσεύσ"});
        CHECK(overlap_words("三只猫、2 кот। हिन्दी") == std::vector<std::string>{"三", "只", "猫", "2", "кот", "हिन्दी"});
        CHECK(overlap_words("...").empty());
    }

    TEST_CASE("exactly, by n-grams, not at all") {
        HeldOutIndex index(4);
        CHECK(index.add(0, "The old hill, and the rain!"));
        CHECK(index.add(1, "a b c d e f g"));
        CHECK_FALSE(index.add(2, "a b c d"));
        const auto found = index.find("x THE OLD HILL AND THE  RAIN b c d e y");
        REQUIRE(found.size() == 2);
        CHECK(found[0].item == 0);
        CHECK(found[0].exact);
        CHECK(found[1].item == 1);
        CHECK_FALSE(found[1].exact);
        CHECK(index.find("the old hill the old hill a b c").empty());
        HeldOutIndex wide(13);
        CHECK(wide.add(0, "five words are found whole"));
        CHECK(wide.find("FIVE words are found, whole.")[0].exact);
        CHECK(wide.find("five words are found").empty());
    }

    TEST_CASE("what cannot be compared is refused, or told") {
        World world("warn");
        write_bytes(world.folder / "mixture.toml", "tasks = \"train.toml\"\n[held_out]\ntasks = \"test.toml\"\nsplits = [\"tset\"]\n");
        CHECK_THROWS_AS(find_overlaps(world.load()), Error);
        write_bytes(world.folder / "mixture.toml", "tasks = \"train.toml\"\n[held_out]\ntasks = \"test.toml\"\n");
        std::filesystem::remove(world.folder / "test.jsonl");
        const Overlaps o = find_overlaps(world.load());
        CHECK(o.missing.size() == 1);
        CHECK_FALSE(o.items.at(0).compared());
    }

    TEST_CASE("a planted copy is found in a mixture, and left out or refused") {
        const World world("warn");
        const Overlaps o = find_overlaps(world.load());
        CHECK(o.records == std::vector<std::vector<int64_t>>{{7, 9}});
        REQUIRE(o.items.size() == 1);
        CHECK(o.items[0].items == 4);
        CHECK(o.items[0].too_short == 1);
        CHECK(o.items[0].exact == 1);
        CHECK(o.items[0].ngram == 1);
        REQUIRE(o.pairs.size() == 1);
        CHECK(o.pairs[0].exact == 1);
        CHECK(o.pairs[0].ngram == 1);
        CHECK(contains(o.pairs[0].item, "test.jsonl:1"));
        CHECK(contains(o.pairs[0].record, "train.jsonl:8"));
        REQUIRE(o.places.size() == 2);
        CHECK(contains(o.places[0].item, "test.jsonl:1"));
        CHECK(o.places[0].exact);
        CHECK_FALSE(o.places[1].exact);
        CHECK(Overlaps::from_json(o.json(), "x").json() == o.json());
        CHECK(contains(failure(Exit::bad_data, [] { Overlaps::from_json("{}", "x.json"); }), "x.json is no report"));
        CHECK(world.open().sources[0]->size() == 40);
        const OpenMixture dropped = World("drop").open();
        CHECK(dropped.sources[0]->size() == 38);
        CHECK(dropped.sources[0]->counts().held_out == 2);
        World alone("drop");
        write_bytes(alone.folder / "train.jsonl", "{\"question\": \"where oh where has the young sheep gone\", \"answer\": \"x\"}\n");
        CHECK(contains(failure(Exit::bad_data, [&] { alone.open(); }), "gives no example (1 records, 0 malformed, 0 with nothing to ask, 0 too long in every way, 1 that hold held-out items)"));
        for (int64_t slot = 0; slot < 38; ++slot) {
            const int64_t record = dropped.sources[0]->draw(0, slot).record;
            CHECK(record != 7);
            CHECK(record != 9);
        }
        CHECK(contains(failure(Exit::bad_data, [] { World("refuse").open(); }), "2 records of the mixture hold items that are held out, as"));
    }

    TEST_CASE("a search is kept, and made again when anything that it depends on has changed") {
        const World world("warn");
        const std::filesystem::path cache = world.folder / "cache";
        const auto searches = [&] {  // beside the cache's lock
            std::vector<std::filesystem::path> files;
            for (const auto& entry : std::filesystem::directory_iterator(cache))
                if (entry.path().extension() == ".json") files.push_back(entry.path());
            return files;
        };
        const auto kept = [&] { return searches().size(); };
        const std::string first = cached_overlaps(world.load(), cache).json();
        CHECK(first == find_overlaps(world.load()).json());
        REQUIRE(kept() == 1);
        const std::filesystem::path file = searches()[0];
        std::string changed = read_file(file);
        changed.replace(changed.find("\"items\": 4"), 10, "\"items\": 9");
        write_bytes(file, changed);
        CHECK(cached_overlaps(world.load(), cache).items[0].items == 9);  // what is kept is taken
        write_bytes(file, "{");
        CHECK(cached_overlaps(world.load(), cache).json() == first);  // damaged: made again
        write_bytes(world.folder / "test.jsonl", read_file(world.folder / "test.jsonl") + "{\"question\": \"one more of these strange questions\", \"answer\": \"x\"}\n");
        CHECK(cached_overlaps(world.load(), cache).items[0].items == 5);
        CHECK(kept() == 2);
        write_bytes(world.folder / "train.jsonl", read_file(world.folder / "train.jsonl") + "{\"question\": \"one more of these strange questions!\", \"answer\": \"x\"}\n");
        CHECK(cached_overlaps(world.load(), cache).items[0].exact == 2);
        write_bytes(world.folder / "mixture.toml", "tasks = \"train.toml\"\n[held_out]\ntasks = \"test.toml\"\nngram = 40\n");
        CHECK(cached_overlaps(world.load(), cache).items[0].ngram == 0);
        write_bytes(world.folder / "test.toml", "derived_from = \"x\"\n" + read_file(world.folder / "test.toml"));
        write_bytes(world.folder / "train.toml", "derived_from = [\"x\", \"y\"]\n" + read_file(world.folder / "train.toml"));
        CHECK(cached_overlaps(world.load(), cache).items[0].kin == std::vector<std::string>{"train"});
        CHECK(kept() == 5);
    }

    TEST_CASE("the overlaps that are known are found on the real files, where they are") {
        const char* given = std::getenv("FLANMOE_DATA");
        const std::filesystem::path data = given ? given : "../shared/data", tasks = std::filesystem::absolute("configs/task");
        if (!std::filesystem::exists(data)) return;
        const TemporaryFolder folder;
        // What stands of the held-out task in the other.
        const auto overlaps = [&](const std::string& trained, const std::string& held_out) {
            write_bytes(folder / "trained.toml", trained);
            write_bytes(folder / "held.toml", held_out);
            write_bytes(folder / "mixture.toml", "tasks = \"trained.toml\"\n[held_out]\ntasks = \"held.toml\"\n");
            return find_overlaps(load_mixture({.path = folder / "mixture.toml", .folder = data}));
        };
        const auto task = [](const std::string& reader, const std::string& split, const std::string& files, const std::string& inputs) {
            return "name = \"" + split + "\"\nreader = \"" + reader + "\"\nunique = \"\"\n[files]\n" + split + " = \"" + files + "\"\n[[template]]\ninputs = \"" + inputs + "\"\ntargets = \"x\"\n";
        };
        const std::string asks = "{{ question }}", pair = "{{ premise }} / {{ hypothesis }}";
        // Lines 61 and 218 of AQuA's dev set are in FLAN's training data; MGSM in English is the first 250 problems of GSM8K's test set.
        const Overlaps aqua = overlaps(task("flan_cot", "train", "flan-cot/aqua_train.tsv", asks), task("aqua", "test", "aqua/dev.json", asks));
        std::vector<std::string> exact;
        for (const Overlaps::Place& place : aqua.places)
            if (place.exact) exact.push_back(std::filesystem::path(place.item).filename().string());
        CHECK(exact == std::vector<std::string>{"dev.json:61", "dev.json:218"});
        const Overlaps mgsm = overlaps(task("gsm8k", "train", "gsm8k/test.jsonl", asks), task("mgsm", "test", "mgsm/mgsm_en.tsv", asks));
        CHECK(mgsm.items[0].exact == 250);
        CHECK(mgsm.records[0].size() >= 250);
        // Pairs of SICK in both splits, and questions of ECQA and QASC in T0's prompts: figures of a Python script that counts by the same rules.
        CHECK(overlaps(task("sick", "train", "sick/SICK_train.txt", pair), task("sick", "test", "sick/SICK_test_annotated.txt", pair)).items[0].exact == 52);
        CHECK(overlaps(task("p3", "train", "t0-p3/commonsense*.jsonl", "{{ inputs }}"), task("flan_cot", "test", "flan-cot/ecqa_train.tsv", asks)).items[0].exact == 119);
        CHECK(overlaps(task("p3", "train", "t0-p3/qasc*.jsonl", "{{ inputs }}"), task("flan_cot", "test", "flan-cot/qasc_train.tsv", asks)).items[0].exact == 20);
        // BoolQ's passages behind Natural Instructions' questions about them.
        const std::string questions = task("natural_instructions", "train", "natural-instructions/tasks/task381_boolq_question_generation.json", "{{ input }}");
        CHECK(overlaps(questions, task("glue", "test", "glue-superglue-small/boolq/train.json", "{{ sentence }}")).items[0].ngram == 46);
        CHECK(overlaps(questions, task("glue", "test", "glue-superglue-small/boolq/dev.json", "{{ sentence }}")).items[0].ngram == 19);
    }
}
