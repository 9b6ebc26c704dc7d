#include "train/signals.hpp"

#include "core/file.hpp"
#include "temporary_directory.hpp"

#include <doctest/doctest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace flanmoe;
using flanmoe::test::TemporaryDirectory;

namespace {

// Sends a signal to this process, and waits until the Stop has seen it (up to five seconds).
bool stops(const Stop& stop, int signal) {
    ::kill(::getpid(), signal);
    for (int i = 0; i < 5000 && !stop.requested(); ++i) ::usleep(1000);
    return stop.requested();
}

}  // namespace

TEST_SUITE("train/signals") {
    TEST_CASE("each signal sets the flag and is named") {
        for (const auto& [signal, reason] : {std::pair{SIGUSR1, "signal USR1"}, {SIGUSR2, "signal USR2"}, {SIGTERM, "signal TERM"}, {SIGINT, "signal INT"}}) {
            Stop stop;
            CHECK_FALSE(stop.requested());
            CHECK(stop.reason().empty());
            CHECK(stops(stop, signal));
            CHECK(stop.reason() == reason);
        }
    }

    // A handler's frame on the stack of a thread inside a matrix product may land in the heap: see signals.cpp.
    TEST_CASE("no handler runs on the threads that compute") {
        const Stop stop;
        sigset_t blocked;
        ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
        for (int signal : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP}) CHECK(::sigismember(&blocked, signal) == 1);
    }

    TEST_CASE("requests from inside and the time limit stop too") {
        {
            Stop asked;
            asked.request("train.max_steps = 5");
            CHECK(asked.requested());
            CHECK(asked.reason() == "train.max_steps = 5");
        }
        {
            Stop timed(1e-9);
            ::usleep(1000);
            CHECK(timed.requested());
            CHECK(timed.reason().find("train.max_minutes") != std::string::npos);
        }
        CHECK_FALSE(Stop(60).requested());
    }

    TEST_CASE("a launcher's file stops too, from when it is there") {
        const TemporaryDirectory folder;
        const std::filesystem::path file = folder.path / "stop";
        ::setenv("FLANMOE_STOP_FILE", file.c_str(), 1);
        {
            const Stop stop;
            CHECK_FALSE(stop.requested());
            write_file_atomically(file, "");
            CHECK(stop.requested());
            CHECK(stop.reason() == "a signal to the launcher");
        }
        ::unsetenv("FLANMOE_STOP_FILE");
    }

    TEST_CASE("the third signal leaves at once, a broken pipe does not") {
        const pid_t child = ::fork();
        if (child == 0) {
            Stop stop;
            ::close(STDERR_FILENO);
            ::raise(SIGPIPE);
            if (!stops(stop, SIGUSR1)) ::_exit(1);
            ::kill(::getpid(), SIGTERM);
            ::usleep(100000);  // two pending signals of a kind would be one
            ::kill(::getpid(), SIGTERM);
            ::sleep(5);
            ::_exit(2);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        REQUIRE(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 128 + SIGTERM);
    }
}
