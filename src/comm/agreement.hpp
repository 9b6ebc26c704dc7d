// How ranks stay together where one of them may find trouble: an error that all of them end with, and texts that all of them know.
#pragma once

#include "comm/communicator.hpp"

#include <functional>
#include <string>
#include <vector>

namespace flanmoe {

/// An error that every rank of the run ends with at once; rank 0 says it.
struct SharedError : Error {
    using Error::Error;
    explicit SharedError(const Error& error) : Error(error) {}

    bool said = false;  ///< already
};

/// Runs `work`, which may not communicate, on every rank. If it fails on one, all end with that error, of the first rank that has one.
void together(Communicator& world, const std::function<void()>& work);

/// The text of `root`, on every rank.
std::string broadcast_text(Communicator& world, const std::string& text, int root = 0);
/// Everyone's text, on every rank, in the order of ranks.
std::vector<std::string> gather_texts(Communicator& world, const std::string& text);
/// SharedError (Exit::usage) unless every rank has the same text; names the first that differs. `what` is what the text stands for: "config".
void require_same(Communicator& world, const char* what, const std::string& text, const char* advice);

}  // namespace flanmoe
