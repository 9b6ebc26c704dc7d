#include "core/nearest.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;

TEST_SUITE("core/nearest") {
    TEST_CASE("distance counts single edits and swaps of neighbours") {
        CHECK(edit_distance("", "abc") == 3);
        CHECK(edit_distance("abc", "abc") == 0);
        CHECK(edit_distance("kitten", "sitting") == 3);
        CHECK(edit_distance("tarin", "train") == 1);
    }

    TEST_CASE("the nearest name is found, a far one is not") {
        const std::vector<std::string> names = {"train", "eval", "inspect"};
        CHECK(nearest("tran", names) == "train");
        CHECK(nearest("inspcet", names) == "inspect");
        CHECK(nearest("xyzzy", names).empty());
        CHECK(nearest("ab", {"cd"}).empty());
        CHECK(suggestion("evl", names) == " (did you mean eval?)");
        CHECK(suggestion("quux", names).empty());
    }
}
