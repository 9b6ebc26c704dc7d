// MGSM, as google-research/url-nlp publishes it: eight exemplars of the same language from mgsm/exemplars.py ({language: {number: {"q": "Question: ...", "a":
// "Step-by-Step Answer: ..."}}}, read as it stands; the same as JSON serves too), then the question behind the words that the language's exemplars begin with.
#include "core/error.hpp"
#include "core/file.hpp"
#include "data/readers/fields.hpp"
#include "data/strings.hpp"
#include "eval/suites/source.hpp"

#include <algorithm>

namespace flanmoe {

namespace {

constexpr SuiteFiles files{"mgsm", "github.com/google-research/url-nlp, mgsm/", "mgsm/mgsm_LANGUAGE.tsv and mgsm/exemplars.py (or name it with --exemplars mgsm=FILE)"};

/// Dictionaries of texts as Python writes them: quotes of either kind, neighbouring texts as one, comments.
class PythonTexts {
public:
    PythonTexts(const std::string& text, const std::string& path) : text_(text), path_(path) {
        const size_t name = text.find("MGSM_EXEMPLARS");
        at_ = std::min(text.find('{', name == std::string::npos ? 0 : name), text.size());
    }

    DataValue dictionary() {
        DataValue value{DataValue::Object{}};
        expect('{');
        while (next() != '}') {
            const std::string name = text();
            expect(':');
            value.set(name, next() == '{' ? dictionary() : DataValue(text()));
            if (next() == ',') ++at_;
        }
        ++at_;
        return value;
    }

private:
    [[noreturn]] void refuse(const char* what) const {
        fail(Exit::bad_data, "{}: {} in line {}; give the file exemplars.py of MGSM unchanged, or the same as JSON", path_, what, 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n'));
    }
    char next() {
        for (; at_ < text_.size(); ++at_) {
            if (text_[at_] == '#') at_ = std::min(text_.find('\n', at_), text_.size() - 1);
            if (std::string_view(" \t\r\n()").find(text_[at_]) == std::string_view::npos) return text_[at_];
        }
        refuse("the dictionary of exemplars does not end or is not there");
    }
    void expect(char c) {
        if (next() != c) refuse("a dictionary of texts is malformed");
        ++at_;
    }
    uint32_t hexadecimal(size_t digits) {
        if (at_ + digits > text_.size() || text_.substr(at_, digits).find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) refuse("a text has a malformed escape");
        const auto value = static_cast<uint32_t>(std::stoul(text_.substr(at_, digits), nullptr, 16));
        at_ += digits;
        return value;
    }
    void escape(std::string& result) {
        const char c = text_[at_++];
        if (c == 'u') append_utf8(result, hexadecimal(4));
        else if (c == 'U') append_utf8(result, hexadecimal(8));
        else if (c == 'x') append_utf8(result, hexadecimal(2));
        else if (c == 'n') result += '\n';
        else if (c == 't') result += '\t';
        else if (c == '\\' || c == '"' || c == '\'' || c == '/') result += c;
        else if (c != '\n') refuse("a text has an escape that is not understood");
    }
    std::string text() {
        std::string result;
        if (next() != '"' && next() != '\'') refuse("a text is expected");
        while (next() == '"' || next() == '\'') {
            const char quote = text_[at_++];
            while (at_ < text_.size() && text_[at_] != quote) {
                if (text_[at_] != '\\') result += text_[at_++];
                else if (++at_ < text_.size()) escape(result);
            }
            if (at_++ >= text_.size()) refuse("a text does not end");
        }
        return result;
    }

    const std::string& text_;
    std::string path_;
    size_t at_ = 0;
};

struct Exemplars {
    std::string asks, answers;  ///< "Question: ", "Step-by-Step Answer:"
    std::vector<std::string> shots;
};

/// The words up to the first colon, of either width, and the blanks behind it.
std::string label_of(const std::string& text, const std::string& language) {
    const size_t narrow = text.find(':'), wide = text.find("：");
    if (narrow == std::string::npos && wide == std::string::npos) fail(Exit::bad_data, "suite mgsm: an exemplar in '{}' has no colon behind its first words; it begins with 'Question:', say", language);
    size_t end = narrow < wide ? narrow + 1 : wide + 3;
    while (end < text.size() && text[end] == ' ') ++end;
    return text.substr(0, end);
}

Exemplars exemplars_of(const DataValue& all, const std::string& language, const std::string& path) {
    const DataValue* entries = all.find(language);
    if (!entries || !entries->object() || entries->object()->empty()) fail(Exit::bad_data, "{} has no exemplars of the language '{}'; name a file that has with --exemplars mgsm=FILE", path, language);
    Exemplars exemplars;
    for (const DataValue::Member& entry : *entries->object()) {
        const DataValue *asked = entry.value.find("q"), *answered = entry.value.find("a");
        if (!asked || !answered || !asked->text() || !answered->text()) fail(Exit::bad_data, "{}: exemplar {} of '{}' lacks 'q' or 'a'", path, entry.name, language);
        if (exemplars.shots.empty()) exemplars.asks = label_of(*asked->text(), language), exemplars.answers = trimmed(label_of(*answered->text(), language));
        exemplars.shots.push_back(*asked->text() + "\n" + *answered->text() + "\n\n");
    }
    return exemplars;
}

}  // namespace

std::vector<SuiteTask> build_mgsm(PromptMode mode, const SuiteSettings& settings) {
    const std::filesystem::path path = exemplar_path("mgsm", settings, settings.data / "mgsm/exemplars.py");
    if (!std::filesystem::exists(path)) missing_files(files, path);
    const std::string text = read_file(path);
    const DataValue all = PythonTexts(text, path.string()).dictionary();
    std::vector<SuiteTask> tasks;
    for (const char* language : {"bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"}) {
        if (!settings.wants("mgsm", language)) continue;
        const Exemplars exemplars = exemplars_of(all, language, path.string());
        SuiteTask task;
        task.suite = "mgsm", task.name = task.language = language, task.category = "mathematics", task.mode = mode;
        task.rule = AnswerRule::number;
        task.counts = task.name != "en";
        task.stop = "\n" + trimmed(exemplars.asks);
        const size_t count = shot_count(suite_named("mgsm"), settings, exemplars.shots.size(), path.string() + " in " + language);
        task.shots.assign(exemplars.shots.begin(), exemplars.shots.begin() + static_cast<std::ptrdiff_t>(count));
        for (const Record& record : read_suite_file(files, "mgsm", settings.data / "mgsm" / (std::string("mgsm_") + language + ".tsv"), settings, task.dropped)) {
            SuiteQuestion question;
            question.prompt = exemplars.asks + text_of(record, "question") + "\n" + exemplars.answers;
            question.answers = {text_of(record, "answer")};
            add_question(task, record, std::move(question));
        }
        finish_task(task, settings);
        tasks.push_back(std::move(task));
    }
    return tasks;
}

}  // namespace flanmoe
