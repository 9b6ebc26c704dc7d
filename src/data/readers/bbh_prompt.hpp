// The chain-of-thought prompt file of a BIG-Bench-Hard task: a canary line, a line of dashes, a description, then shots "Q: ... A: ...".
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace flanmoe {

struct BbhPrompt {
    std::string description;
    struct Shot {
        std::string question;   ///< behind "Q: "
        std::string rationale;  ///< behind "A: ", to the end: "Let's think step by step. ... So the answer is (B)."
        std::string answer;     ///< behind the last "the answer is", without the full stop
    };
    std::vector<Shot> shots;
};

/// Exit::missing_input; Exit::bad_data with line and remedy for a file of another form (no dashes, a question without answer, an answer that is not named).
BbhPrompt read_bbh_prompt(const std::filesystem::path& path);

}  // namespace flanmoe
