// The state of a run goes through JSON without losing a bit, and damaged text is refused.
#include "train/training_state.hpp"

#include "core/error.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

using namespace flanmoe;

namespace {

RunState example() {
    RunState s;
    s.step = 1234567890123, s.tokens = int64_t{1} << 60;
    s.loader = R"({"epoch":3,"position":17})";
    s.best = 0.1 + 0.2, s.best_step = 1200, s.validations_without_improvement = 4;
    s.watch = {1.0 / 3.0, 99, 7, 2, 1};
    return s;
}

}  // namespace

TEST_SUITE("train/training_state") {
    TEST_CASE("round trip") {
        const RunState a = example(), b = RunState::from_json(a.to_json(), "x");
        CHECK(b.step == a.step);
        CHECK(b.tokens == a.tokens);
        CHECK(b.best == a.best);
        CHECK(b.best_step == a.best_step);
        CHECK(b.validations_without_improvement == a.validations_without_improvement);
        CHECK(b.watch.mean_loss == a.watch.mean_loss);
        CHECK(b.watch.applied == 99);
        CHECK(b.watch.skipped == 7);
        CHECK(b.watch.skipped_in_row == 2);
        CHECK(b.watch.rollbacks == 1);
        CHECK(b.loader == a.loader);
        CHECK(b.to_json() == a.to_json());
    }
    TEST_CASE("no best value yet") {
        for (const double best : {INFINITY, -INFINITY}) {
            RunState s = example();
            s.best = best;
            CHECK(RunState::from_json(s.to_json(), "x").best == best);
        }
    }
    TEST_CASE("damaged text") {
        const std::string good = example().to_json();
        std::string without = good;
        without.replace(without.find("tokens_seen"), 6, "coins_");
        for (const std::string& text : {std::string(), std::string("{"), std::string("[]"), good.substr(0, good.size() / 2), without}) {
            try {
                RunState::from_json(text, "run/step-7");
                FAIL_CHECK("accepted: " << text);
            } catch (const Error& error) {
                CHECK(error.code == Exit::bad_checkpoint);
                CHECK(std::string(error.what()).starts_with("run/step-7: "));
            }
        }
    }
}
