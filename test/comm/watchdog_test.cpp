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
    Progress progress;
    std::mutex mutex;
    std::vector<Finding> findings;
    std::unique_ptr<Watchdog> dog(int rank, std::vector<RankProcess> places, double patience, double timeout = 0) {
        post.queues.resize(places.size());
        return std::make_unique<Watchdog>(rank, std::move(places), std::make_unique<LocalMailbox>(post, rank), activity, progress, Watchdog::Limits{patience, timeout}, [this](const Finding& f) {
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

/// Another rank, which finds nothing.
struct Other {
    Activity activity;
    Progress progress;
    Watchdog dog;
    Other(Watched& watched, int rank, const std::vector<RankProcess>& places)
        : dog(rank, places, std::make_unique<LocalMailbox>(watched.post, rank), activity, progress, {}, [](const Finding&) {}) {}
};

/// A device in the third of the collectives that its host has queued.
struct FakeDevice : DeviceProgress {
    std::atomic<int64_t> begun = 3, ended = 2;
    Reached reached() const override { return {begun, ended, "feed-forward backward", "reduce-scatter", 5}; }
};

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
        {
            // The child's own sign of life, as its watchdog sends it.
            Other other(watched, 1, {{"a", self}, {"a", child.process}});
            other.activity.step = 17, other.activity.part = "attention backward", other.activity.layer = 3;
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
        {
            const Other other(watched, 1, places);
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
    TEST_CASE("of ranks that all live, the one behind is named when another waits too long in a collective") {
        const std::vector<RankProcess> places{{"a", self}, {"a", self}, {"a", self}};
        for (const int culprit : {0, 1, 2}) {
            CAPTURE(culprit);
            Watched watched;
            const auto dog = watched.dog(0, places, 60, 0.6);
            Other one(watched, 1, places), two(watched, 2, places);
            Activity* const activities[] = {&watched.activity, &one.activity, &two.activity};
            Progress* const progresses[] = {&watched.progress, &one.progress, &two.progress};
            for (int r = 0; r < 3; ++r) {
                activities[r]->step = 17, activities[r]->part = r == culprit ? "data" : "sum over ranks";
                progresses[r]->ended = 4, progresses[r]->begun = r == culprit ? 4 : 5;
                if (r != culprit) activities[r]->collective = "all-reduce";
            }
            REQUIRE(watched.wait(20));
            const Finding& f = watched.findings[0];
            CHECK(f.code == Exit::hang);
            CHECK(f.rank == culprit);
            CHECK(f.sentence.rfind(fmt::format("rank {} (process {} on a) has not come to all-reduce for ", culprit, self), 0) == 0);
            CHECK(f.sentence.find(" s (parallel.timeout); it was last at step 17, data; rank ") != std::string::npos);
            CHECK(f.sentence.find(" is at step 17, sum over ranks, in all-reduce; ") != std::string::npos);
        }
    }
    TEST_CASE("a device in a collective waits too, whatever its host is at; of ranks that all wait, the one with the fewest is behind") {
        const std::vector<RankProcess> places{{"a", self}, {"a", self}};
        Watched watched;
        const auto dog = watched.dog(0, places, 60, 0.6);
        Other other(watched, 1, places);
        FakeDevice ours, theirs;
        theirs.begun = 2;
        watched.progress.follow(&ours), other.progress.follow(&theirs);
        watched.activity.part = other.activity.part = "forward and backward";
        REQUIRE(watched.wait(20));
        CHECK(watched.findings[0].rank == 1);
        CHECK(watched.findings[0].sentence.find(" s (parallel.timeout); it was last at before the first step, forward and backward, "
                                                "its GPU behind reduce-scatter of feed-forward backward, layer 5; "
                                                "rank 0 is at before the first step, feed-forward backward, layer 5, in reduce-scatter") != std::string::npos);
        Watched again;
        const auto next_dog = again.dog(0, places, 60, 0.6);
        Other in_another(again, 1, places);
        again.progress.follow(&ours), theirs.ended = 1, in_another.progress.follow(&theirs);
        REQUIRE(again.wait(20));
        CHECK(again.findings[0].rank == 1);
        CHECK(again.findings[0].sentence.find("is stuck in reduce-scatter for ") != std::string::npos);
        for (Progress* p : {&watched.progress, &other.progress, &again.progress, &in_another.progress}) p->follow(nullptr);
    }
    TEST_CASE("nobody is behind while collectives go on, while one works without hurry, or before all were heard") {
        const std::vector<RankProcess> places{{"a", self}, {"a", self}};
        enum Case { goes_on, works_unhurried, not_heard, all_unhurried, unlimited };
        for (const Case c : {goes_on, works_unhurried, not_heard, all_unhurried, unlimited}) {
            CAPTURE(c);
            Watched watched;
            const auto dog = watched.dog(0, places, 60, c == unlimited ? 0 : 1.5);
            std::unique_ptr<Other> other;
            if (c != not_heard) other = std::make_unique<Other>(watched, 1, places);
            if (c == works_unhurried || c == all_unhurried) other->activity.unhurried = 1;
            if (c == all_unhurried) watched.activity.unhurried = other->progress.begun = 1;
            watched.progress.begun = 1;
            for (int i = 0; i < 25; ++i) {
                CHECK(!watched.wait(0.1));
                if (c == goes_on) ++watched.progress.begun, ++watched.progress.ended;
            }
        }
    }
    TEST_CASE("a rank that waits without hurry names one that neither comes nor says that it takes its time") {
        const std::vector<RankProcess> places{{"a", self}, {"a", self}};
        Watched watched;
        const auto dog = watched.dog(0, places, 60, 1.5);
        Other other(watched, 1, places);
        watched.activity.unhurried = 1, watched.progress.begun = 1;
        for (int i = 0; i < 25; ++i) {  // on its way
            CHECK(!watched.wait(0.1));
            other.activity.layer = i;
        }
        REQUIRE(watched.wait(20));
        CHECK(watched.findings[0].rank == 1);
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
