// The watchdog among threads that pass each other messages through queues; processes of its own as neighbours.
#include "comm/watchdog.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <chrono>
#include <cstring>
#include <deque>
#include <mutex>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace flanmoe;

namespace {

/// Messages between ranks of one process.
struct Post {
    std::mutex mutex;
    std::vector<std::deque<std::pair<int, std::vector<std::byte>>>> queues;
};

class LocalMailbox : public Mailbox {
public:
    LocalMailbox(Post& post, int rank) : post_(post), rank_(rank) {}
    void send(int rank, std::span<const std::byte> message) override {
        const std::lock_guard lock(post_.mutex);
        post_.queues[static_cast<size_t>(rank)].push_back({rank_, {message.begin(), message.end()}});
    }
    int receive(std::span<std::byte> message) override {
        const std::lock_guard lock(post_.mutex);
        auto& queue = post_.queues[static_cast<size_t>(rank_)];
        if (queue.empty()) return -1;
        const auto [sender, bytes] = queue.front();
        queue.pop_front();
        std::memcpy(message.data(), bytes.data(), std::min(bytes.size(), message.size()));
        return sender;
    }

private:
    Post& post_;
    int rank_;
};

/// A child that does nothing until it is killed.
struct Child {
    pid_t process = ::fork();
    Child() {
        if (process == 0)
            for (;;) ::pause();
    }
    ~Child() {
        ::kill(process, SIGKILL);
        ::waitpid(process, nullptr, 0);
    }
};

struct Watched {
    Post post;
    Activity activity;
    std::mutex mutex;
    std::vector<Finding> findings;
    std::unique_ptr<Watchdog> dog(int rank, std::vector<RankProcess> places, double patience) {
        post.queues.resize(places.size());
        return std::make_unique<Watchdog>(rank, std::move(places), std::make_unique<LocalMailbox>(post, rank), activity, patience, [this](const Finding& f) {
            const std::lock_guard lock(mutex);
            findings.push_back(f);
        });
    }
    bool wait(double seconds) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
        while (std::chrono::steady_clock::now() < end) {
            {
                const std::lock_guard lock(mutex);
                if (!findings.empty()) return true;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        return false;
    }
};

const int64_t self = ::getpid();

}  // namespace

TEST_SUITE("comm/watchdog") {
    TEST_CASE("a neighbour that has ended is noticed at once") {
        Child child;
        Watched watched;
        const auto dog = watched.dog(1, {{"a", self}, {"a", self}, {"a", child.process}}, 60);
        CHECK(!watched.wait(0.5));
        ::kill(child.process, SIGKILL);
        REQUIRE(watched.wait(5));
        CHECK(watched.findings[0].code == Exit::rank_failed);
        CHECK(watched.findings[0].rank == 2);
        CHECK(watched.findings[0].sentence.rfind(fmt::format("rank 2 (process {} on a) has ended", child.process), 0) == 0);
    }
    TEST_CASE("a neighbour that is stopped is noticed after the patience, with what it did last") {
        Child child;
        Watched watched;
        const auto dog = watched.dog(0, {{"a", self}, {"a", child.process}}, 0.6);
        Activity theirs;
        theirs.step = 17, theirs.part = "attention backward", theirs.layer = 3;
        {
            // The child's own sign of life, as its watchdog sends it.
            Watchdog other(1, {{"a", self}, {"a", child.process}}, std::make_unique<LocalMailbox>(watched.post, 1), theirs, 0, [](const Finding&) {});
            std::this_thread::sleep_for(std::chrono::milliseconds(300));
            ::kill(child.process, SIGSTOP);
            watched.activity.step = 17, watched.activity.part = "gradients", watched.activity.collective = "all-reduce";
            REQUIRE(watched.wait(5));
        }
        CHECK(watched.findings[0].code == Exit::hang);
        CHECK(watched.findings[0].sentence.find("has been stopped for ") != std::string::npos);
        CHECK(watched.findings[0].sentence.find("it was last at step 17, attention backward, layer 3; rank 0 is at step 17, gradients, in all-reduce") != std::string::npos);
    }
    TEST_CASE("a rank on another host that falls silent is noticed by the first ones; one that beats is not") {
        Watched watched;
        const std::vector<RankProcess> places{{"a", self}, {"b", self}};
        const auto dog = watched.dog(0, places, 0.6);
        Activity theirs;
        {
            Watchdog other(1, places, std::make_unique<LocalMailbox>(watched.post, 1), theirs, 0, [](const Finding&) {});
            CHECK(!watched.wait(1.5));
        }
        REQUIRE(watched.wait(5));
        CHECK(watched.findings[0].code == Exit::hang);
        CHECK(watched.findings[0].rank == 1);
    }
    TEST_CASE("a first host that falls silent, with all its ranks, is noticed by the first rank of another") {
        const std::vector<RankProcess> places{{"a", self}, {"a", self}, {"b", self}, {"b", self}};
        for (const int rank : {2, 3}) {
            Watched watched;
            const auto dog = watched.dog(rank, places, 0.6);
            CHECK(watched.wait(2) == (rank == 2));  // rank 3 gets nobody's signs of life but its neighbour's
            if (rank == 2) CHECK(watched.findings[0].rank == 0);
        }
    }
    TEST_CASE("a process that could never be seen is not taken to have ended") {
        Watched watched;
        const auto dog = watched.dog(1, {{"a", self}, {"a", self}, {"a", int64_t{1} << 40}}, 60);
        CHECK(!watched.wait(0.6));
    }
    TEST_CASE("the state of a process") {
        Child child;
        CHECK(process_state(self) != 0);
        ::kill(child.process, SIGSTOP);
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        CHECK(process_state(child.process) == 'T');
        CHECK(process_state(int64_t{1} << 40) == 0);
    }
}
