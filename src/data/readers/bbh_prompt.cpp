// See the header. Shots are told apart by "Q: " at the begin of a line behind an empty one.
#include "data/readers/bbh_prompt.hpp"

#include "core/error.hpp"
#include "data/readers/fields.hpp"
#include "data/readers/layouts.hpp"

namespace flanmoe {

namespace {

BbhPrompt::Shot parse_shot(const std::string& text, const std::filesystem::path& path, size_t number) {
    const size_t answer = text.find("\nA: ");
    if (answer == std::string::npos)
        fail(Exit::bad_data, "{}: shot {} has no line that begins with 'A: '; use the prompt files of the benchmark unchanged", path.string(), number);
    BbhPrompt::Shot shot{trimmed(text.substr(0, answer)), trimmed(text.substr(answer + 4)), ""};
    const size_t named = shot.rationale.rfind("the answer is ");
    if (named == std::string::npos)
        fail(Exit::bad_data, "{}: shot {} does not say 'the answer is'; use the prompt files of the benchmark unchanged", path.string(), number);
    shot.answer = trimmed(shot.rationale.substr(named + 14));
    if (shot.answer.ends_with('.')) shot.answer.pop_back();
    return shot;
}

}  // namespace

BbhPrompt read_bbh_prompt(const std::filesystem::path& path) {
    const std::string text = read_text(path, Encoding::utf8);
    const size_t dashes = text.find("\n-----\n");
    if (dashes == std::string::npos) fail(Exit::bad_data, "{} has no line '-----' behind its first one; is it a prompt file of BIG-Bench-Hard?", path.string());
    std::string rest = "\n\n" + text.substr(dashes + 7);
    BbhPrompt prompt;
    size_t at = rest.find("\n\nQ: ");
    if (at == std::string::npos) fail(Exit::bad_data, "{} has no shot (a line that begins with 'Q: '); is it a prompt file of BIG-Bench-Hard?", path.string());
    prompt.description = trimmed(rest.substr(0, at));
    while (at != std::string::npos) {
        const size_t next = rest.find("\n\nQ: ", at + 5);
        prompt.shots.push_back(parse_shot(rest.substr(at + 5, next == std::string::npos ? next : next - at - 5), path, prompt.shots.size() + 1));
        at = next;
    }
    return prompt;
}

}  // namespace flanmoe
