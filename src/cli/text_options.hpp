// Options that `tokenizer train` and `data shard` share: how raw text is read.
#pragma once

#include "data/text_files.hpp"

#include <CLI/CLI.hpp>

#include <memory>
#include <string>
#include <vector>

namespace flanmoe::cli {

struct TextArguments {
    std::string encoding = "utf-8", boundaries = "file", malformed = "fail";
    std::vector<std::string> keys = {"text"};

    void add_to(CLI::App& command) {
        command.add_option("--encoding", encoding, "Encoding of the text: utf-8, latin-1 or cp1252")->capture_default_str();
        command.add_option("--documents", boundaries, "A document of a plain text file is: file, blank-line (up to the next one) or line")
            ->capture_default_str();
        command.add_option("--key", keys, "Field of JSONL lines that holds text; may be repeated: those that a line has are joined")
            ->allow_extra_args(false)
            ->capture_default_str();
        command.add_option("--malformed", malformed, "Malformed lines and invalid text: fail, or skip (and count)")
            ->check(CLI::IsMember({"fail", "skip"}))
            ->capture_default_str();
    }

    TextOptions options() const {
        return {parse_encoding(encoding), parse_boundaries(boundaries), keys, malformed == "skip" ? MalformedPolicy::skip : MalformedPolicy::fail};
    }
};

}  // namespace flanmoe::cli
