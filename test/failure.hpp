// What a refusal says.
#pragma once

#include "core/error.hpp"

#include <doctest/doctest.h>

#include <string>

namespace flanmoe::testing {

/// Runs `action`, checks that it fails with `code`, and returns its sentence ("" if it did not fail).
template <class Action>
std::string failure(Exit code, Action&& action) {
    try {
        action();
    } catch (const Error& error) {
        CHECK_MESSAGE(error.code == code, error.what());
        return error.what();
    }
    FAIL_CHECK("no error where one is expected");
    return {};
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace flanmoe::testing
