#include "train/signals.hpp"

#include <doctest/doctest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace flanmoe;

TEST_SUITE("train/signals") {
    TEST_CASE("each signal sets the flag and is named") {
        for (const auto& [signal, reason] : {std::pair{SIGUSR1, "signal USR1"}, {SIGUSR2, "signal USR2"}, {SIGTERM, "signal TERM"}, {SIGINT, "signal INT"}}) {
            Stop stop;
            CHECK_FALSE(stop.requested());
            CHECK(stop.reason().empty());
            ::raise(signal);
            CHECK(stop.requested());
            CHECK(stop.reason() == reason);
        }
    }

    TEST_CASE("requests from inside and the time limit stop too") {
        Stop asked;
        asked.request("train.max_steps = 5");
        CHECK(asked.requested());
        CHECK(asked.reason() == "train.max_steps = 5");
        Stop timed(1e-9);
        ::usleep(1000);
        CHECK(timed.requested());
        CHECK(timed.reason().find("train.max_minutes") != std::string::npos);
        Stop later(60);
        CHECK_FALSE(later.requested());
    }

    TEST_CASE("the third signal leaves at once, a broken pipe does not") {
        const pid_t child = ::fork();
        if (child == 0) {
            Stop stop;
            ::close(STDERR_FILENO);
            ::raise(SIGPIPE);
            ::raise(SIGUSR1);
            ::raise(SIGTERM);
            if (!stop.requested()) ::_exit(1);
            ::raise(SIGTERM);
            ::_exit(2);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        REQUIRE(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 128 + SIGTERM);
    }
}
