// Learning rates at the points where schedules bend.
#include "optim/schedule.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace flanmoe;

namespace {

OptimizerConfig schedule(Schedule kind, double rate, int64_t warmup, double final_fraction = 0) {
    OptimizerConfig c;
    c.schedule = kind, c.learning_rate = rate, c.warmup_steps = warmup, c.final_fraction = final_fraction;
    return c;
}

}  // namespace

TEST_SUITE("optim/schedule") {
    TEST_CASE("constant, with and without warm-up") {
        CHECK(learning_rate(schedule(Schedule::constant, 0.5, 0), 0, 10) == 0.5);
        const OptimizerConfig ramp = schedule(Schedule::constant, 0.5, 4);
        CHECK(learning_rate(ramp, 0, 10) == 0.125);  // the first step is not lost at a rate of 0
        CHECK(learning_rate(ramp, 3, 10) == 0.5);
        CHECK(learning_rate(ramp, 1000, 10) == 0.5);
    }
    TEST_CASE("inverse square root is T5's: constant, then 1 / sqrt(t)") {
        const OptimizerConfig c = schedule(Schedule::inverse_sqrt, 1.0, 10000);
        CHECK(learning_rate(c, 0, 0) == 0.01);
        CHECK(learning_rate(c, 10000, 0) == 0.01);
        CHECK(learning_rate(c, 40000, 0) == 0.005);
        CHECK(learning_rate(schedule(Schedule::inverse_sqrt, 1.0, 0), 0, 0) == 1.0);
    }
    TEST_CASE("linear and cosine end at the final fraction and stay there") {
        for (const Schedule kind : {Schedule::linear, Schedule::cosine}) {
            const OptimizerConfig c = schedule(kind, 2.0, 10, 0.25);
            CHECK(learning_rate(c, 4, 110) == 1.0);
            CHECK(learning_rate(c, 10, 110) == 2.0);
            CHECK(learning_rate(c, 60, 110) == doctest::Approx(1.25));  // half-way
            CHECK(learning_rate(c, 110, 110) == doctest::Approx(0.5));
            CHECK(learning_rate(c, 500, 110) == doctest::Approx(0.5));
        }
        CHECK(learning_rate(schedule(Schedule::linear, 1, 0), 25, 100) == doctest::Approx(0.75));
        CHECK(learning_rate(schedule(Schedule::cosine, 1, 0), 25, 100) == doctest::Approx(0.5 + std::sqrt(0.125)));
    }
}
