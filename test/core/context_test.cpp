// Parts of a step: their times add up by name, and marks are taken back.
#include "core/context.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

using namespace flanmoe;

TEST_SUITE("core/context") {
    TEST_CASE("a timer adds up the time of equal names, and only of parts while it is set") {
        Context context;
        PartTimer timer;
        const auto part_of = [&](const char* name, int milliseconds) {
            auto part = context.part(name, 3);
            std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
        };
        part_of("before", 1);
        context.timer = &timer;
        for (int i = 0; i < 3; ++i) part_of("often", 2);
        part_of("once", 5);
        CHECK(timer.entries().empty());
        timer.collect(*context.engine);
        REQUIRE(timer.entries().size() == 2);
        CHECK(timer.entries()[0].name == "often");
        CHECK(timer.entries()[0].calls == 3);
        CHECK(timer.entries()[0].seconds >= 0.006);
        CHECK(timer.entries()[1].calls == 1);
        CHECK(timer.entries()[1].seconds >= 0.005);
        timer.collect(*context.engine);
        CHECK(timer.entries()[1].calls == 1);
    }

    TEST_CASE("a rank's activity says which part and layer it is at, and afterwards what it said before") {
        Context context;
        Activity activity;
        activity.part = "forward and backward";
        {
            auto part = context.part("embedding");  // nobody asks
        }
        context.activity = &activity;
        {
            auto part = context.part("attention forward", 3);
            CHECK(std::string(activity.part) == "attention forward");
            CHECK(activity.layer == 3);
        }
        CHECK(std::string(activity.part) == "forward and backward");
        CHECK(activity.layer == -1);
    }
}
