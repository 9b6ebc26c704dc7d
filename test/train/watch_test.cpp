// What every policy does with steps that are not finite and with spikes, and when it gives up.
#include "train/watch.hpp"

#include "core/error.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace flanmoe;

namespace {

StepGradients step(double loss, double norm = 1.0) {
    StepGradients s;
    s.loss = loss, s.gradient_norm = norm;
    return s;
}

TrainConfig with(TroublePolicy policy) {
    TrainConfig c;
    c.non_finite = c.spike = policy;
    c.max_skips = 3, c.max_rollbacks = 2, c.spike_factor = 2;
    return c;
}

int64_t failure(Watch& watch, const TrainConfig& config, const StepGradients& s) {
    try {
        watch.judge(config, s, 7);
    } catch (const Error& error) {
        CHECK(std::string(error.what()).starts_with("step 7: "));
        return static_cast<int64_t>(error.code);
    }
    return 0;
}

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

TEST_SUITE("train/watch") {
    TEST_CASE("good steps are applied and move the mean by 2 %") {
        Watch watch;
        CHECK(watch.judge({}, step(4), 0) == Verdict::apply);
        CHECK(watch.mean_loss == 4);
        CHECK(watch.judge({}, step(2), 1) == Verdict::apply);
        CHECK(watch.mean_loss == doctest::Approx(3.96));
        CHECK(watch.applied == 2);
    }
    TEST_CASE("whatever is not finite, or whose squares overflow 32 bits, is not applied") {
        for (const StepGradients& s : {step(NAN), step(infinity), step(-infinity), step(1, NAN), step(1, infinity), step(1, 1e30)}) {
            Watch watch;
            CHECK(watch.judge(with(TroublePolicy::skip), s, 0) == Verdict::skip);
            CHECK(watch.applied == 0);
            CHECK(watch.mean_loss == 0);
            CHECK(watch.skipped == 1);
        }
        Watch watch;
        CHECK(watch.judge(with(TroublePolicy::skip), step(1, 1e17), 0) == Verdict::apply);
    }
    TEST_CASE("skip: so many in a row and no more; a good step begins the count anew") {
        Watch watch;
        const TrainConfig config = with(TroublePolicy::skip);
        for (int i = 0; i < 3; ++i) CHECK(watch.judge(config, step(NAN), i) == Verdict::skip);
        CHECK(watch.judge(config, step(1), 3) == Verdict::apply);
        for (int i = 0; i < 3; ++i) CHECK(watch.judge(config, step(NAN), i) == Verdict::skip);
        CHECK(failure(watch, config, step(NAN)) == 78);
        CHECK(watch.skipped == 7);
    }
    TEST_CASE("rollback: so many in all and no more") {
        Watch watch;
        const TrainConfig config = with(TroublePolicy::rollback);
        for (int i = 0; i < 2; ++i) {
            CHECK(watch.judge(config, step(NAN), i) == Verdict::rollback);
            CHECK(watch.judge(config, step(1), i) == Verdict::apply);
        }
        CHECK(failure(watch, config, step(NAN)) == 78);
    }
    TEST_CASE("stop: at once") {
        Watch watch;
        CHECK(failure(watch, with(TroublePolicy::stop), step(NAN)) == 78);
    }
    TEST_CASE("a spike is a loss above the factor times the mean, once the mean has settled") {
        const TrainConfig config = with(TroublePolicy::skip);
        Watch watch;
        for (int i = 0; i < 19; ++i) watch.judge(config, step(1), i);
        CHECK(watch.judge(config, step(1.5), 19) == Verdict::apply);
        CHECK(watch.judge(config, step(1.9), 20) == Verdict::apply);
        CHECK(watch.judge(config, step(2.2), 21) == Verdict::skip);
        CHECK(watch.mean_loss < 1.05);  // a spike does not move the mean
        Watch young;
        CHECK(young.judge(config, step(1), 0) == Verdict::apply);
        CHECK(young.judge(config, step(100), 1) == Verdict::apply);
        TrainConfig unwatched = config;
        unwatched.spike_factor = 0;
        CHECK(watch.judge(unwatched, step(100), 22) == Verdict::apply);
    }
    TEST_CASE("the two kinds of trouble have policies of their own") {
        TrainConfig config = with(TroublePolicy::skip);
        config.spike = TroublePolicy::stop;
        Watch watch;
        for (int i = 0; i < 20; ++i) watch.judge(config, step(1), i);
        CHECK(watch.judge(config, step(NAN), 20) == Verdict::skip);
        CHECK(failure(watch, config, step(3)) == 78);
    }
}
