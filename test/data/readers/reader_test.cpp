// Readers: what each gives of a small file in its format, field by field; what is wrong with malformed ones, with place and remedy.
#include "data/readers/reader.hpp"

#include "../fixtures.hpp"
#include "data/readers/bbh_prompt.hpp"

#include <set>

using namespace flanmoe;
using namespace flanmoe::testing;
namespace fs = std::filesystem;

namespace {

const fs::path files = "test/data/readers/files";

std::vector<fs::path> paths(const std::vector<std::string>& names) {
    std::vector<fs::path> all;
    for (const std::string& name : names) all.push_back(files / name);
    return all;
}

std::vector<Record> records(const std::string& reader, const std::vector<fs::path>& from, const ReadOptions& options = {}, ReadCounts* counts = nullptr) {
    std::vector<Record> all;
    const ReadCounts found = read_records(find_reader(reader), from, options, [&](Record&& record) { all.push_back(std::move(record)); });
    if (counts) *counts = found;
    CHECK(found.records == static_cast<int64_t>(all.size()));
    return all;
}

struct Case {
    const char* reader;
    std::vector<std::string> files;
    std::vector<std::string> expected;  ///< records as JSON
};

const std::vector<Case>& first_cases() {
    static const std::string rest =
        R"j("task":"natural_instructions_v1","categories":[],"source":[],"domains":[],"reasoning":[],"input_language":[],"output_language":[],"title":"Naming birds",)j"
        R"j("prompt":"Name the bird.","things_to_avoid":"","emphasis":"One word.","positive_examples":[{"input":"It dives.","output":"kingfisher","explanation":"It hunts fish."}],)j"
        R"j("negative_examples":[]})j";
    static const std::string v2 =
        R"j("definition":"Count the birds.\nAnswer with a number.","task":"natural_instructions","categories":["Word Counting"],"source":["made_up"],"domains":["Nature"],"reasoning":[],)j"
        R"j("input_language":["English"],"output_language":["English"],"title":"","prompt":"","things_to_avoid":"","emphasis":"",)j"
        R"j("positive_examples":[{"input":"owl owl","output":"2","explanation":"Two owls."}],"negative_examples":[{"input":"owl","output":"3","explanation":"There is one."}]})j";
    static const std::string birds = R"j("question":"Which is a \"bird\", then?\n(one)","options":["owl","ox, red","carp","newt"],"letters":["A","B","C","D"],"answer":"owl","letter":"A","subject":"made_up"})j";
    static const std::string sum = R"j({"question":"What is 2 + 2?","options":["3","4","5","6"],"letters":["A","B","C","D"],"answer":"4","letter":"B","subject":"made_up"})j";
    static const std::vector<Case> all = {
        {"natural_instructions", {"natural_instructions.json"},
         {R"j({"id":"task0-a","input":"wren, wren, kite","output":["3","three"],)j" + v2, R"j({"id":"task0-b","input":"a café \"without\" birds","output":["0"],)j" + v2}},
        {"natural_instructions", {"natural_instructions_v1.json"},
         {R"j({"id":"","input":"It hoots.","output":["owl"],"definition":"You are told what a bird does; name it.",)j" + rest,
          R"j({"id":"","input":"It soars.","output":["kite","eagle"],"definition":"You are told what a bird does; name it.",)j" + rest}},
        {"p3", {"p3.jsonl"},
         {R"j({"inputs":"Is the sky green?\n","targets":["no"]})j", R"j({"answer_choices":["yes","no"],"inputs":"Is grass green?","targets":["yes"],"options":["yes","no"]})j"}},
        {"flan", {"flan.jsonl"},
         {R"j({"inputs":"Say hello.","targets":["hello"],"task_source":"Flan2021","task_name":"greet","template_type":"zs_noopt"})j",
          R"j({"inputs":"Say bye.","targets":["bye"],"task_source":"CoT","task_name":"part","template_type":"fs_opt"})j"}},
        {"flan_cot", {"flan_cot.tsv"},
         {R"j({"question":"How many legs have two cats?\nGive a number.","answer":"8","rationale":"A cat has four legs. 2 x 4 = 8."})j",
          R"j({"question":"Is ice warm?","answer":"no","rationale":"Ice is frozen \"water\"."})j"}},
        {"gsm8k", {"gsm8k.jsonl"},
         {R"j({"question":"A crate holds 6 jars. How many jars are in 7 crates?","answer":"42","rationale":"There are 6 * 7 = 42 jars.","solution":"There are 6 * 7 = <<6*7=42>>42 jars.\n#### 42"})j",
          R"j({"question":"Rent is 1,000 a month. What is it a year?","answer":"12,000","rationale":"1,000 * 12 = 12,000","solution":"1,000 * 12 = <<1000*12=12000>>12,000\n#### 12,000"})j"}},
        {"aqua", {"aqua.json"},
         {R"j({"question":"What is 3 + 4?","options":["6","7","8","9","None of these"],"letters":["A","B","C","D","E"],"answer":"7","letter":"B","rationale":"3 + 4 = 7. Answer B"})j",
          R"j({"question":"What is half of 9?","options":["4","4.5","5","3","18"],"letters":["A","B","C","D","E"],"answer":"4.5","letter":"B","rationale":"9 / 2"})j"}},
        {"strategyqa", {"strategyqa.json"},
         {R"j({"id":"q1","question":"Can a kite outlive a mayfly?","answer":"yes","options":["yes","no"],"facts":["A kite lives years.","A mayfly lives days."],"decomposition":["How long lives a kite?","Is #1 more than days?"],"rationale":"A kite lives years. A mayfly lives days.","term":"Kite","description":"a bird"})j",
          R"j({"id":"q2","question":"Do owls read?","answer":"no","options":["yes","no"],"facts":["Owls are birds."],"decomposition":[],"rationale":"Owls are birds.","term":"Owl","description":"a bird"})j"}},
        {"e_snli", {"s1.train", "s2.train", "labels.train", "expl_1.train"},
         {R"j({"premise":"A dog runs .","hypothesis":"An animal moves .","label":"entailment","rationale":"a dog is an animal .","rationales":["a dog is an animal ."],"options":["entailment","neutral","contradiction"]})j",
          R"j({"premise":"A man sleeps .","hypothesis":"A man runs .","label":"contradiction","rationale":"one cannot run asleep .","rationales":["one cannot run asleep ."],"options":["entailment","neutral","contradiction"]})j"}},
        {"e_snli_csv", {"e_snli.csv"},
         {R"j({"id":"p1","premise":"A cat, asleep","hypothesis":"The cat dreams","label":"neutral","rationale":"Not every \"sleeping\" cat dreams","rationales":["Not every \"sleeping\" cat dreams"],"options":["entailment","neutral","contradiction"]})j"}},
        {"self_instruct", {"self_instruct.jsonl"},
         {R"j({"id":"s1","name":"greet","instruction":"Greet the person.","is_classification":false,"input":"Ann","output":"Hello Ann"})j",
          R"j({"id":"s1","name":"greet","instruction":"Greet the person.","is_classification":false,"input":"Bob","output":"Hello Bob"})j"}},
        {"instruction_induction", {"instruction_induction.json"},
         {R"j({"input":"big","output":"small","possible_outputs":["small","little"],"id":"1","task":"instruction_induction","answers":["small","little"]})j",
          R"j({"input":"hot","output":"cold","id":"2","task":"instruction_induction","answers":["cold"]})j"}},
        {"mmlu", {"made_up_dev.csv"}, {sum, "{" + birds}},
        {"mmlu", {"made_up_test.csv"}, {sum, "{" + birds}},
        {"bbh", {"which_bird.json"},
         {R"j({"input":"Which is a bird?\nOptions:\n(A) ox\n(B) owl","target":"(B)","task":"which_bird","options":["(A)","(B)"]})j",
          R"j({"input":"Is it?\nOptions:\n- Yes\n- No","target":"No","task":"which_bird","options":["Yes","No"]})j",
          R"j({"input":"not True is","target":"False","task":"which_bird","options":[]})j"}},
    };
    return all;
}

const std::vector<Case>& other_cases() {
    static const std::vector<Case> all = {
        {"svamp", {"svamp.json"},
         {R"j({"id":"c-1","body":"Ann has 5 pens","asked":"How many are left when 2 are lost?","question":"Ann has 5 pens. How many are left when 2 are lost?","answer":"3","equation":"( 5.0 - 2.0 )","type":"Subtraction"})j",
          R"j({"id":"c-2","body":"A rope of 3 m is halved.","asked":"How long is a half?","question":"A rope of 3 m is halved. How long is a half?","answer":"1.5","equation":"( 3.0 / 2.0 )","type":"Common-Division"})j"}},
        {"asdiv", {"asdiv.xml"},
         {R"j({"id":"t-1","body":"Three & four birds sit.","asked":"How many birds sit?","question":"Three & four birds sit. How many birds sit?","answer":"7","full_answer":"7 (birds)","unit":"birds","formula":"3+4=7","type":"Addition","grade":"1"})j",
          R"j({"id":"t-2","body":"At 3 o'clock she leaves and walks an hour","asked":"When is she there?","question":"At 3 o'clock she leaves and walks an hour. When is she there?","answer":"4:00","full_answer":"4:00","unit":"","formula":"3+1=4","type":"Addition","grade":"2"})j"}},
        {"mgsm", {"mgsm_de.tsv"},
         {R"j({"question":"Wie viel ist 2 mal 3?","answer":"6","language":"de"})j", R"j({"question":"Was ist mehr als 1.000 um 1?","answer":"1,001","language":"de"})j"}},
        {"commonsenseqa", {"commonsenseqa.jsonl"},
         {R"j({"id":"x1","question":"Where does a bird sleep?","options":["sea","nest"],"letters":["A","B"],"answer":"nest","letter":"B","fact":"","concept":"bird"})j"}},
        {"arc", {"arc.jsonl"},
         {R"j({"id":"a1","question":"Which flies?","options":["stone","wren"],"letters":["1","2"],"answer":"wren","letter":"2","fact":"","concept":""})j",
          R"j({"id":"a2","question":"Which swims?","options":["carp","wren"],"letters":["A","B"],"answer":"carp","letter":"A","fact":"","concept":""})j"}},
        {"openbookqa", {"openbookqa.jsonl"},
         {R"j({"id":"o1","question":"Ice in the sun will","options":["melt","sing"],"letters":["A","B"],"answer":"melt","letter":"A","fact":"heat melts ice","concept":""})j"}},
        {"tydiqa_goldp", {"tydiqa_goldp.json"},
         {R"j({"id":"finnish-12-0","language":"finnish","title":"Kuu","context":"Kuu kiertää Maata.","question":"Mitä Kuu kiertää?","answers":["Maata"]})j"}},
        {"tydiqa", {"tydiqa.jsonl"},
         {R"j({"id":"9063198863303558000","language":"finnish","title":"Kuu","question":"Mitä Kuu kiertää?","document":"Kuu ää kiertä Maata. Loppu.","passages":["Kuu ää kiertä Maata.","Loppu."],"answers":["Maata"],"answer_passages":["Kuu ää kiertä Maata."],"verdicts":["YES"]})j"}},
        {"condaqa", {"condaqa.json"},
         {R"j({"context":"It was not dry.","question":"Did it rain?","answer":"DON'T KNOW","cue":"not","passage_id":"44","edit_id":"2","question_id":"q1","id":"44-2-q1"})j"}},
        {"cxc", {"cxc.csv"},
         {R"j({"caption1":"set:1","caption2":"set:2","score":"1.25","sampling_method":"c2c"})j", R"j({"caption1":"set:3","caption2":"set:4","score":"5","sampling_method":"c2c"})j"}},
        {"pubmedqa", {"pubmedqa.json"},
         {R"j({"id":"101","question":"Does rest help?","contexts":["We tried rest.","It helped."],"context":"We tried rest.\nIt helped.","options":["yes","no","maybe"],"answer":"yes","long_answer":"Rest helps."})j",
          R"j({"id":"102","question":"Does noise?","contexts":["We tried noise."],"context":"We tried noise.","options":["yes","no","maybe"],"answer":"maybe","long_answer":"Unclear."})j"}},
        {"searchqa", {"searchqa.txt"},
         {R"j({"snippets":["Owls hoot at night .","An owl is a bird ."],"context":"Owls hoot at night .\nAn owl is a bird .","question":"bird that hoots","answers":["owl"]})j"}},
        {"searchqa_json", {"searchqa.jsonl"},
         {R"j({"snippets":["Owls hoot."],"context":"Owls hoot.","question":"bird that hoots","answers":["owl","the owl"]})j",
          R"j({"snippets":["A kingfisher dives."],"context":"A kingfisher dives.","question":"bird that dives","answers":["kingfisher"]})j"}},
        {"sick", {"sick.txt"},
         {R"j({"id":"1","premise":"A bird sings","hypothesis":"A bird is singing","score":"4.9","label":"entailment","options":["entailment","neutral","contradiction"]})j",
          R"j({"id":"2","premise":"A bird sings","hypothesis":"Nobody sings","score":"3","label":"contradiction","options":["entailment","neutral","contradiction"]})j"}},
        {"cxc", {"captioned/sts.csv"}, {R"j({"caption1":"A wren sings.","caption2":"a full text","score":"2.5","sampling_method":"c2c"})j"}},
        {"multirc", {"multirc.jsonl"},
         {R"j({"id":"7-0-0","question_id":"7-0","context":"Ann ran. Bob sat.","question":"Who ran?","candidate":"Ann","answer":"true"})j",
          R"j({"id":"7-0-1","question_id":"7-0","context":"Ann ran. Bob sat.","question":"Who ran?","candidate":"Bob","answer":"false"})j"}},
        {"record", {"record.jsonl"},
         {R"j({"id":"3","context":"Zoë met Bob. Bob left.","query":"@placeholder left.","entities":["Zoë","Bob"],"answers":["Bob"]})j"}},
        {"glue", {"glue/train.json"},
         {R"j({"label":"A","sentence":"Which follows \"It rained\"?\nA: wet\nB: dry","options":["A","B"]})j", R"j({"label":"B","sentence":"Which follows \"It burned\"?\nA: ice\nB: ash","options":["A","B"]})j"}},
        {"aligned", {"s1.train", "labels.train"},
         {R"j({"s1.train":"A dog runs .","labels.train":"entailment"})j", R"j({"s1.train":"A man sleeps .","labels.train":"contradiction"})j"}},
        {"csv", {"cxc.csv"}, {R"j({"caption1":"set:1","caption2":"set:2","agg_score":"1.25","sampling_method":"c2c"})j", R"j({"caption1":"set:3","caption2":"set:4","agg_score":"5","sampling_method":"c2c"})j"}},
        {"tsv", {"mgsm_de.tsv"}, {R"j({"Wie viel ist 2 mal 3?":"Was ist mehr als 1.000 um 1?","6":"1,001"})j"}},
        {"lines", {"labels.train"}, {R"j({"line":"entailment"})j", R"j({"line":"contradiction"})j"}},
        {"json", {"glue/train.json"}, {R"j({"label":"A","sentence":"Which follows \"It rained\"?\nA: wet\nB: dry"})j", R"j({"label":"B","sentence":"Which follows \"It burned\"?\nA: ice\nB: ash"})j"}},
        {"jsonl", {"gsm8k.jsonl"},
         {R"j({"question":"A crate holds 6 jars. How many jars are in 7 crates?","answer":"There are 6 * 7 = <<6*7=42>>42 jars.\n#### 42"})j",
          R"j({"question":"Rent is 1,000 a month. What is it a year?","answer":"1,000 * 12 = <<1000*12=12000>>12,000\n#### 12,000"})j"}},
    };
    return all;
}

std::vector<Case> cases() {
    std::vector<Case> all = first_cases();
    all.insert(all.end(), other_cases().begin(), other_cases().end());
    return all;
}

/// The sentence about a file with these bytes.
std::string refusal(const std::string& reader, const std::string& name, const std::string& bytes, Exit code = Exit::bad_data) {
    const TemporaryFolder folder;
    write_bytes(folder.path() / name, bytes);
    return failure(code, [&] { records(reader, {folder.path() / name}); });
}

}  // namespace

TEST_SUITE("data/readers/reader") {
    TEST_CASE("every reader gives the fields of its format") {
        std::set<std::string> covered;
        for (const Case& c : cases()) {
            CAPTURE(c.reader);
            covered.insert(c.reader);
            const std::vector<Record> found = records(c.reader, paths(c.files));
            REQUIRE(found.size() == c.expected.size());
            for (size_t i = 0; i < found.size(); ++i) {
                CHECK(found[i].fields.json() == c.expected[i]);
                CHECK(found[i].number >= 1);
                for (const std::string& name : find_reader(c.reader).fields) CHECK_MESSAGE(found[i].fields.find(name) != nullptr, name);
            }
        }
        for (const Reader& reader : readers()) CHECK_MESSAGE(covered.contains(reader.name), reader.name << " has no case");
    }

    TEST_CASE("places: lines of line formats, numbers of records of documents") {
        CHECK(records("gsm8k", paths({"gsm8k.jsonl"}))[1].place() == (files / "gsm8k.jsonl").string() + ":2");
        CHECK(records("svamp", paths({"svamp.json"}))[1].place() == (files / "svamp.json").string() + ", record 2");
        CHECK(records("mmlu", paths({"made_up_test.csv"}))[1].place() == (files / "made_up_test.csv").string() + ":3");
        CHECK(records("mmlu", paths({"made_up_dev.csv"}))[1].place() == (files / "made_up_dev.csv").string() + ":2");
    }

    TEST_CASE("columns, other encodings, byte order marks, an array where lines are expected") {
        const TemporaryFolder folder;
        write_bytes(folder.path() / "a.tsv", "caf\xe9\t1\n");
        ReadOptions options;
        options.columns = {"word", "count"};
        CHECK(contains(failure(Exit::bad_data, [&] { records("tsv", {folder.path() / "a.tsv"}, options); }), "a.tsv:1 is not valid UTF-8 at byte 3"));
        options.encoding = Encoding::latin1;
        CHECK(records("tsv", {folder.path() / "a.tsv"}, options)[0].fields.json() == R"j({"word":"café","count":"1"})j");
        write_bytes(folder.path() / "b.jsonl", "\xef\xbb\xbf[{\"inputs\": \"a\", \"targets\": \"b\"},\n {\"inputs\": \"c\", \"targets\": \"d\"}]");
        CHECK(records("flan", {folder.path() / "b.jsonl"}).size() == 2);
        write_bytes(folder.path() / "c.csv", "\xef\xbb\xbfone,two\r\n1,\"2\r\n3\"\r\n\r\n4,5");
        const auto rows = records("csv", {folder.path() / "c.csv"});
        REQUIRE(rows.size() == 2);
        CHECK(rows[0].fields.json() == R"j({"one":"1","two":"2\r\n3"})j");
        CHECK(rows[1].place() == (folder.path() / "c.csv").string() + ":5");
        write_bytes(folder.path() / "d.json", R"j({"items": {"x": {"v": 1}, "y": {"v": 2.5}}})j");
        options = {};
        options.records = "items";
        CHECK(records("json", {folder.path() / "d.json"}, options)[1].fields.json() == R"j({"v":2.5,"id":"y"})j");
    }

    TEST_CASE("malformed records: place, field, remedy; or skipped and counted") {
        CHECK(contains(refusal("gsm8k", "x.jsonl", "{\"question\": \"a\", \"answer\": \"#### 1\"}\n{\"question\": \"a\"}\n"), "x.jsonl:2 has no field 'answer' (it has: question)"));
        CHECK(contains(refusal("gsm8k", "x.jsonl", "{\"question\": \"a\", \"answer\": \"1\"}\n"), "x.jsonl:1 has a field 'answer' without '#### '"));
        CHECK(contains(refusal("gsm8k", "x.jsonl", "{\"question\": 7, \"answer\": \"#### 1\"}\n"), "has a field 'question' that is a number, not a text"));
        CHECK(contains(refusal("gsm8k", "x.jsonl", "{\"question\": \n"), "x.jsonl:1 is not valid JSON"));
        CHECK(contains(refusal("gsm8k", "x.jsonl", "7\n"), "is not a JSON object"));
        CHECK(contains(refusal("aqua", "x.json", R"j({"question": "q", "options": ["A)1", "B)2"], "correct": "E"})j"), "has the answer 'E', which is none of its 2 options"));
        CHECK(contains(refusal("mmlu", "x.csv", "q,1,2,3,4,F\n"), "x.csv:1 has the answer 'F', not one of A to D"));
        CHECK(contains(refusal("mmlu", "x.csv", "q,1,2,3,4,A\nq,1,2,3,A\n"), "x.csv:2 has 5 cells where 6 are expected (question, A, B, C, D, answer)"));
        CHECK(contains(refusal("mmlu", "x.csv", "q,1,\"2\n,3,4,A\n"), "x.csv:1 opens a quote on line 1 that is never closed"));
        CHECK(contains(refusal("mmlu", "x.csv", "q,1,\"2\"3,3,4,A\n"), "x.csv:1 has text behind a closing quote"));
        CHECK(contains(refusal("sick", "x.txt", "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n1\ta\tb\t9\tNEUTRAL\n"), "'9', not a number from 1 to 5"));
        CHECK(contains(refusal("sick", "x.txt", "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n1\ta\tb\t2\tPERHAPS\n"), "label 'perhaps'"));
        CHECK(contains(refusal("asdiv", "x.xml", "<a>\n<Problem>\n</a>"), "x.xml:3 is not valid XML"));
        CHECK(contains(refusal("asdiv", "x.xml", "<a/>"), "has no element <Problem>"));
        CHECK(contains(refusal("asdiv", "x.xml", "<a><Problem ID=\"1\"><Body>b</Body><Question>q</Question></Problem></a>"), "x.xml, record 1 has no field 'Answer'"));
        CHECK(contains(refusal("bbh", "x.json", "{\"canary\": \"\"}"), "has no member 'examples'"));
        CHECK(contains(refusal("bbh", "x.json", "{\"examples\": [7]}"), "record 1 is a number, not an object"));
        CHECK(contains(refusal("svamp", "x.json", "[{]"), "is not valid JSON"));
        CHECK(contains(refusal("svamp", "x.json", "\xff\xfe["), "is not valid UTF-8 at byte 0"));
        CHECK(contains(refusal("tydiqa", "x.jsonl", R"j({"example_id": 1, "language": "a", "document_title": "", "question_text": "", "document_plaintext": "abc",)j"
                                                    R"j( "passage_answer_candidates": [{"plaintext_start_byte": 0, "plaintext_end_byte": 9}]})j"),
                       "points to bytes 0 to 9 of a document_plaintext of 3 bytes"));
        CHECK(contains(refusal("strategyqa", "x.json", R"j([{"qid": "1", "question": "q", "answer": "yes", "facts": []}])j"), "'answer' that is a text, not true or false"));
        CHECK(contains(refusal("searchqa", "x.txt", "a ||| b\n"), "x.txt:1 has 2 parts"));
        CHECK(contains(refusal("commonsenseqa", "x.jsonl", R"j({"question": {"stem": "s", "choices": [{"label": "A", "text": "t"}]}, "answerKey": "B"})j"), "answerKey 'B'"));
        CHECK(contains(failure(Exit::missing_input, [] { records("gsm8k", {"nowhere.jsonl"}); }), "nowhere.jsonl"));
        CHECK(contains(failure(Exit::usage, [] { find_reader("gms8k"); }), "there is no reader 'gms8k' (did you mean gsm8k?)"));

        const TemporaryFolder folder;
        {
            // A quote that is never closed loses its own row, not those behind it.
            write_bytes(folder.path() / "q.csv", "q,1,2,3,4,A\nq,1,\"2,3,4,A\nr,1,2,3,4,B\ns,1,2,3,4,C\n");
            ReadOptions skip;
            skip.malformed = MalformedPolicy::skip;
            int64_t kept = 0;
            const ReadCounts counts = read_records(find_reader("mmlu"), {folder.path() / "q.csv"}, skip, [&](Record&&) { ++kept; });
            CHECK(kept == 3);
            CHECK(counts.malformed == 1);
        }
        write_bytes(folder.path() / "x.jsonl", "{\"question\": \"a\", \"answer\": \"#### 1\"}\n{}\nno\n\xff\n{\"question\": \"b\", \"answer\": \"#### 2\"}\n");
        ReadOptions options;
        options.malformed = MalformedPolicy::skip;
        ReadCounts counts;
        CHECK(records("gsm8k", {folder.path() / "x.jsonl"}, options, &counts).size() == 2);
        CHECK(counts.malformed == 3);
        CHECK(contains(counts.problems.at(0), "x.jsonl:2 has no field 'answer' (it has: none)"));
        write_bytes(folder.path() / "short", "one\n");
        CHECK(contains(failure(Exit::bad_data, [&] { records("aligned", {files / "s1.train", folder.path() / "short"}); }), "short ends after 1 lines, but the files beside it go on to line 2"));
    }

    TEST_CASE("one bad part of a record loses itself, not those beside it; nothing is left out uncounted") {
        const TemporaryFolder folder;
        ReadOptions skip;
        skip.malformed = MalformedPolicy::skip;
        struct Partial {
            const char *reader, *name, *text;
            size_t kept;
            std::vector<std::string> problems;
        };
        const std::vector<Partial> partials = {
            {"tydiqa_goldp", "x.json",
             R"j({"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "a-1", "question": "q", "answers": [{"text": "c"}]}, {"id": "a-2", "question": "q", "answers": []},)j"
             R"j( 7, {"id": "a-3", "question": "q", "answers": [{"text": "c"}]}]}, {"qas": [{"id": "a-4", "question": "q", "answers": [{"text": "c"}]}]}]},)j"
             R"j( {"paragraphs": [{"context": "c", "qas": [{"id": "a-5", "question": "q", "answers": [{"text": "c"}]}]}]}]})j",
             3, {"record 1 (paragraph 1, question 2) 'a-2' has no answers", "record 1 (paragraph 1, question 3) is a number, not an object", "record 1 (paragraph 2, question 1) has no field 'context'"}},
            {"searchqa_json", "x.jsonl",
             "{\"context\": \"c\", \"qas\": [{\"question\": \"q\", \"answers\": [\"a\"]}, {\"question\": \"q\"}, {\"question\": \"r\", \"answers\": [\"b\"]}]}\n"
             "{\"question\": \"q\", \"answer\": \"a\", \"search_results\": [{\"snippets\": null}, {\"snippet\": 7}]}\n",
             2, {"x.jsonl:1 (question 2) has no field 'answers'", "x.jsonl:2 has a field 'snippet' that is a number, not a list"}},
            {"self_instruct", "x.jsonl", "{\"instruction\": \"i\", \"instances\": [{\"input\": \"a\"}, {\"input\": \"a\", \"output\": \"b\"}]}\n", 1, {"x.jsonl:1 (instance 1) has no field 'output'"}},
            {"natural_instructions", "x.json", R"j({"Definition": ["Do it.", 7], "Instances": [{"input": "a", "output": "b"}]})j", 0, {"record 1 has a field 'Definition' that holds a number, not only texts"}},
            {"natural_instructions", "x.json", R"j({"Definition": "Do it.", "Positive Examples": ["-", "no object"], "Instances": [{"input": "a", "output": "b"}]})j", 0,
             {"record 1 belongs to a document whose 'Positive Examples' hold a text"}},
            {"natural_instructions", "x.json", R"j({"Definition": "Do it.", "Positive Examples": "-", "Instances": [{"input": "a", "output": "b"}]})j", 1, {}},
            {"p3", "x.jsonl", "{\"inputs\": \"a\", \"targets\": \"b\", \"answer_choices\": \"b\"}\n", 0, {"x.jsonl:1 has a field 'answer_choices' that is a text, not a list"}},
            {"condaqa", "x.json", "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": \"YES\", \"original cue\": 7, \"PassageID\": 1, \"PassageEditID\": 0, \"QuestionID\": \"q\"}\n", 0,
             {"x.json:1 has a field 'original cue' that is a number, not a text"}},
            {"tydiqa", "x.jsonl", R"j({"document_plaintext": "a", "passage_answer_candidates": [], "annotations": "none"})j", 0, {"x.jsonl:1 has a field 'annotations' that is a text, not a list"}},
            {"asdiv", "x.xml", "<a><Problem ID=\"1\"><Body>one<!-- a comment --> two</Body><Question>q</Question><Answer>2</Answer></Problem><Problem><Body>b</Body><Body>c</Body></Problem>"
                               "<Problem><Body>b <i>c</i></Body></Problem></a>",
             1, {"record 2 has 'Body' twice", "record 3 has an element <Body> with an element <i> inside, not a text"}},
        };
        for (const Partial& p : partials) {
            CAPTURE(p.text);
            write_bytes(folder.path() / p.name, p.text);
            ReadCounts counts;
            const auto kept = records(p.reader, {folder.path() / p.name}, skip, &counts);
            CHECK(kept.size() == p.kept);
            CHECK(counts.malformed == static_cast<int64_t>(p.problems.size()));
            REQUIRE(counts.problems.size() == p.problems.size());
            for (size_t i = 0; i < p.problems.size(); ++i) CHECK_MESSAGE(contains(counts.problems[i], p.problems[i]), counts.problems[i]);
            if (!p.problems.empty()) CHECK(contains(failure(Exit::bad_data, [&] { records(p.reader, {folder.path() / p.name}); }), p.problems[0]));
            if (p.kept > 0 && std::string(p.reader) == "asdiv") CHECK(kept[0].fields.find("body")->as_text() == "one two");
        }
        ReadCounts counts;
        records("searchqa_json", paths({"searchqa.jsonl"}), {}, &counts);
        CHECK(counts.headers == 1);
        write_bytes(folder.path() / "h.jsonl", "{\"header\": {}, \"question\": \"q\"}\n");
        CHECK(contains(failure(Exit::bad_data, [&] { records("searchqa_json", {folder.path() / "h.jsonl"}); }), "h.jsonl:1 has no field 'search_results'"));
    }

    TEST_CASE("prompt files of BIG-Bench-Hard") {
        const BbhPrompt prompt = read_bbh_prompt(files / "which_bird.txt");
        CHECK(prompt.description == "Say which is a bird.");
        REQUIRE(prompt.shots.size() == 2);
        CHECK(prompt.shots[0].question == "Which is a bird?\nOptions:\n(A) ox\n(B) owl");
        CHECK(prompt.shots[0].rationale == "Let us see. An owl is a bird. So the answer is (B).");
        CHECK(prompt.shots[0].answer == "(B)");
        CHECK(prompt.shots[1].answer == "No");
        CHECK(contains(failure(Exit::bad_data, [] { read_bbh_prompt(files / "searchqa.txt"); }), "has no line '-----'"));
    }
}
