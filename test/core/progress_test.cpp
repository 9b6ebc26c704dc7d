// Times as people read them.
#include "core/progress.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;

TEST_SUITE("core/progress") {
    TEST_CASE("clock times") {
        CHECK(clock_text(0) == "0:00");
        CHECK(clock_text(-3) == "0:00");
        CHECK(clock_text(59.6) == "1:00");
        CHECK(clock_text(754) == "12:34");
        CHECK(clock_text(11109) == "3:05:09");
    }
}
