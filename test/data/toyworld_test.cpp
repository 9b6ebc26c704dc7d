// The toy world: the same bytes for a seed, splits that share no instance, targets that follow from the inputs, answers that cannot be guessed.
#include "data/toyworld/generate.hpp"

#include "core/error.hpp"
#include "core/file.hpp"

#include <doctest/doctest.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

using namespace flanmoe;
using namespace flanmoe::toyworld;

namespace {

struct TemporaryFolder {
    std::filesystem::path path = std::filesystem::temp_directory_path() / ("flanmoe-toyworld-" + std::to_string(getpid()));
    TemporaryFolder() { std::filesystem::remove_all(path); }
    ~TemporaryFolder() { std::filesystem::remove_all(path); }
};

Sizes small() {
    Sizes sizes;
    sizes.train = 300;
    sizes.finetune = 200;
    sizes.documents = 200;
    return sizes;
}

const Family& find(Word name) {
    for (const Family& family : families()) {
        if (family.name == name) return family;
    }
    FAIL("no family " << name);
    return families().front();
}

/// Words of a text; punctuation is dropped.
std::vector<std::string> words(const std::string& text) {
    std::string plain_text;
    for (const char c : text) plain_text += (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : ' ';
    std::istringstream in(plain_text);
    std::vector<std::string> out;
    for (std::string word; in >> word;) out.push_back(word);
    return out;
}

std::vector<Instance> instances(Word family, size_t count = 200) {
    const World world(7);
    Draw draw(world, 7, family);
    std::vector<Instance> out;
    for (size_t i = 0; i < count; ++i) out.push_back(find(family).draw(draw));
    return out;
}

}  // namespace

TEST_SUITE("data/toyworld") {
    TEST_CASE("a seed gives the same bytes everywhere") {
        // Pinned: a change of words, families or draws changes the data of every user and must be made on purpose.
        std::string bytes;
        const World world(1);
        for (const Family& family : families()) {
            const Splits splits = draw_splits(family, world, small());
            for (const auto* part : {&splits.train, &splits.validation, &splits.test}) {
                for (const Example& e : *part) bytes += json_line(family, e);
            }
        }
        for (const CorpusFile& file : write_corpus(world, small())) bytes += file.name + file.text;
        CHECK(XXH3_64bits(bytes.data(), bytes.size()) == 10058094837087405162ull);
        for (const char c : bytes) REQUIRE((c == '\n' || (c >= ' ' && c <= '~')));
    }

    TEST_CASE("there are enough families, templates and instances, and every template uses every field") {
        std::map<Role, size_t> count;
        std::set<Word> names;
        const World world(1);
        for (const Family& family : families()) {
            CAPTURE(family.name);
            ++count[family.role];
            CHECK(names.insert(family.name).second);
            CHECK(family.templates.size() >= 2);
            const Splits splits = draw_splits(family, world, Sizes{});
            CHECK(splits.test.size() == 100);
            if (family.role == Role::heldout)
                CHECK(splits.train.empty());
            else
                CHECK(splits.train.size() >= 1000);
            Draw draw(world, 1, family.name);
            const Instance instance = family.draw(draw);
            for (const Word pattern : family.templates) {
                for (size_t f = 0; f < instance.fields.size(); ++f) CHECK(pattern.find("{" + std::to_string(f) + "}") != Word::npos);
            }
        }
        CHECK(count[Role::seen] >= 40);
        CHECK(count[Role::heldout] >= 8);
        CHECK(count[Role::finetune] >= 3);
    }

    TEST_CASE("the documentation shows the families as they are") {
        // After a change: flanmoe data toyworld --list > data/toyworld/families.md
        CHECK(read_file("data/toyworld/families.md") == family_table(1));
    }

    TEST_CASE("splits share no inputs") {
        const World world(3);
        for (const Family& family : families()) {
            CAPTURE(family.name);
            const Splits splits = draw_splits(family, world, small());
            std::set<std::string> seen;
            for (const auto* part : {&splits.train, &splits.validation, &splits.test}) {
                for (const Example& e : *part) {
                    CHECK_MESSAGE(seen.insert(e.inputs).second, e.inputs);
                    CHECK_FALSE(e.targets.empty());
                    if (!e.options.empty()) CHECK(std::count(e.options.begin(), e.options.end(), e.targets) == 1);
                }
            }
        }
    }

    TEST_CASE("a test instance is in training under no template") {
        const World world(1);
        Sizes sizes = small();
        sizes.train = 100000;  // all there is, under every template
        for (const Word name : {"plural", "opposite", "calendar_next"}) {
            const Family& family = find(name);
            const Splits splits = draw_splits(family, world, sizes);
            std::set<std::string> train;
            for (const Example& e : splits.train) train.insert(e.inputs);
            // Rebuild each test instance's inputs under the other templates from its fields.
            Draw draw(world, sizes.seed, name);
            for (size_t i = 0, checked = 0; checked < sizes.test; ++i) {
                const Instance instance = family.draw(draw);
                const std::string shown = render(family, checked % family.templates.size(), instance);
                if (shown != splits.test[checked].inputs) continue;  // a repeated draw
                ++checked;
                for (size_t t = 0; t < family.templates.size(); ++t) CHECK(train.count(render(family, t, instance)) == 0);
            }
        }
    }

    TEST_CASE("always giving the most frequent answer is worth little") {
        const World world(1);
        size_t hits = 0, tests = 0;
        for (const Family& family : families()) {
            if (family.role != Role::seen) continue;
            const Splits splits = draw_splits(family, world, small());
            CHECK_MESSAGE(majority_hits(splits) <= 55, family.name);
            hits += majority_hits(splits);
            tests += splits.test.size();
        }
        MESSAGE("majority baseline: " << 100.0 * static_cast<double>(hits) / static_cast<double>(tests) << " %");
        CHECK(hits * 100 < tests * 15);
    }

    TEST_CASE("arithmetic is right") {
        for (const Instance& i : instances("add_story")) CHECK(std::stoi(i.target) == std::stoi(i.fields[1]) + std::stoi(i.fields[3]));
        for (const Instance& i : instances("take_story")) CHECK(std::stoi(i.target) == std::stoi(i.fields[1]) - std::stoi(i.fields[3]));
        for (const Instance& i : instances("price")) CHECK(std::stoi(i.target) == std::stoi(i.fields[2]) * std::stoi(i.fields[3]));
        for (const Instance& i : instances("rationale_sum")) {
            const int sum = std::stoi(i.fields[1]) + std::stoi(i.fields[3]), rest = sum - std::stoi(i.fields[4]);
            CHECK(rest >= 0);
            CHECK(i.target == i.fields[1] + " + " + i.fields[3] + " = " + std::to_string(sum) + ", " + std::to_string(sum) + " - " + i.fields[4] +
                                  " = " + std::to_string(rest));
        }
        for (const Instance& i : instances("sequence_next")) {
            const auto n = words(i.fields[1]);
            CHECK(std::stoi(i.target) - std::stoi(n[3]) == std::stoi(n[1]) - std::stoi(n[0]));
        }
        for (const Instance& i : instances("largest")) {
            int best = 0;
            for (const std::string& w : words(i.fields[0])) best = std::max(best, std::stoi(w));
            CHECK(std::stoi(i.target) == best);
        }
        for (const Instance& i : instances("count_word")) {
            const auto list = words(i.fields[1]);
            CHECK(std::stoi(i.target) == std::count(list.begin(), list.end(), i.fields[0]));
        }
    }

    TEST_CASE("lists and letters are right") {
        for (const Instance& i : instances("reverse_words")) {
            auto list = words(i.fields[0]);
            std::reverse(list.begin(), list.end());
            CHECK(words(i.target) == list);
        }
        for (const Instance& i : instances("sort_words")) {
            auto list = words(i.fields[0]);
            std::sort(list.begin(), list.end());
            CHECK(words(i.target) == list);
        }
        for (const Instance& i : instances("spell")) {
            const auto two = words(i.fields[1]);
            std::string glued;
            for (const std::string& letter : words(i.target)) glued += letter;
            CHECK(glued == two[i.fields[0] == "second"]);
        }
        for (const Instance& i : instances("common")) {
            const auto left = words(i.fields[0]), right = words(i.fields[1]);
            CHECK(std::count(left.begin(), left.end(), i.target) == 1);
            CHECK(std::count(right.begin(), right.end(), i.target) == 1);
        }
    }

    TEST_CASE("reading and reasoning follow from the text") {
        for (const Instance& i : instances("where_is")) {
            const auto text = words(i.fields[0]);
            const auto at = std::find(text.begin(), text.end(), i.fields[1]);
            CHECK(*(at + 4) == i.target);  // NAME is in the PLACE
        }
        for (const Instance& i : instances("tallest")) {
            const auto text = words(i.fields[0]);  // A is taller than B. C is taller than D.
            const bool most = i.fields[1] == "tallest";
            const size_t winner = most ? 0 : 4, loser = most ? 4 : 0;
            CHECK(i.target == (text[winner] == text[5 + loser] ? text[5 + winner] : text[winner]));
        }
        for (const Instance& i : instances("inference")) {
            const std::string said = words(i.fields[0])[1], claimed = words(i.fields[1])[3];
            const auto index = [](const std::string& w) {
                return std::find(std::begin(adjectives), std::end(adjectives), w) - std::begin(adjectives);
            };
            CHECK(i.target == (index(said) == index(claimed) ? "yes" : index(said) == (index(claimed) ^ 1) ? "no" : "maybe"));
        }
        for (const Instance& i : instances("ownership")) {
            const auto text = words(i.fields[0]);  // A has the X. B has the Y. G gives it to C.
            const std::string owner = i.fields[1] == text[3] ? text[0] : text[4];
            CHECK(i.target == (owner == text[8] ? text[12] : owner));
        }
        for (size_t i = 0; i < std::size(opposites); ++i) {
            CHECK(adjectives[2 * i] == opposites[i].first);
            CHECK(adjectives[2 * i + 1] == opposites[i].second);
        }
    }

    TEST_CASE("translation goes there and back") {
        std::map<std::string, std::string> dictionary;
        for (const auto& part : {std::span<const Pair>(invented_nouns), std::span<const Pair>(invented_adjectives),
                                 std::span<const Pair>(invented_deeds), std::span<const Pair>(invented_acts)}) {
            for (const Pair& pair : part) CHECK(dictionary.emplace(pair.second, pair.first).second);
        }
        for (const Instance& i : instances("translate_from")) {
            const auto zumi = words(i.fields[0]);  // verb subject adjective [object]
            std::string english = "the " + dictionary.at(zumi[2]) + ' ' + dictionary.at(zumi[1]) + ' ' + dictionary.at(zumi[0]);
            if (zumi.size() == 4) english += " the " + dictionary.at(zumi[3]);
            CHECK(i.target == english);
        }
    }

    TEST_CASE("files are written, written over, and others left alone") {
        const TemporaryFolder folder;
        const std::string manifest = generate(folder.path, small());
        CHECK(read_file(folder.path / "manifest.json") == manifest);
        const std::string line = read_file(folder.path / "eval" / "seen" / "where_is.jsonl");
        CHECK(line.starts_with(R"({"inputs": ")"));
        CHECK(std::count(line.begin(), line.end(), '\n') == 100);
        CHECK(std::filesystem::exists(folder.path / "finetune" / "aspect" / "valid.jsonl"));
        CHECK_FALSE(std::filesystem::exists(folder.path / "instruct" / "train" / "job_of.jsonl"));
        CHECK(generate(folder.path, small()) == manifest);
        std::filesystem::remove(folder.path / "manifest.json");
        CHECK_THROWS_AS(generate(folder.path, small()), Error);
    }
}
