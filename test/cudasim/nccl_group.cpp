#include "cudasim/nccl_group.hpp"

#include "cudasim/runtime_state.hpp"

#include "core/error.hpp"

#include <cstdio>
#include <deque>
#include <map>

namespace cudasim {

namespace {

class ThreadGroup : public NcclGroup {
public:
    explicit ThreadGroup(int ranks) : ranks_(ranks) {}
    void publish(int64_t collective, int rank, Bytes bytes) override {
        Meeting& meeting = meetings_[collective];
        meeting.sent.resize(static_cast<size_t>(ranks_));
        meeting.sent[static_cast<size_t>(rank)] = std::move(bytes);
        ++meeting.arrived;
    }
    bool all_published(int64_t collective) override {
        const auto found = meetings_.find(collective);
        return found != meetings_.end() && found->second.arrived == ranks_;
    }
    std::vector<Bytes> take(int64_t collective, int) override {
        Meeting& meeting = meetings_[collective];
        const std::vector<Bytes> sent = meeting.sent;
        if (++meeting.left == ranks_) meetings_.erase(collective);
        return sent;
    }
    void send(int from, int to, Bytes bytes) override { channels_[{from, to}].push_back(std::move(bytes)); }
    bool has_sent(int from, int to) override { return !channels_[{from, to}].empty(); }
    Bytes receive(int from, int to) override {
        std::deque<Bytes>& channel = channels_[{from, to}];
        Bytes bytes = std::move(channel.front());
        channel.pop_front();
        return bytes;
    }

private:
    struct Meeting {
        std::vector<Bytes> sent;
        int arrived = 0, left = 0;
    };
    int ranks_;
    std::map<int64_t, Meeting> meetings_;
    std::map<std::pair<int, int>, std::deque<Bytes>> channels_;
};

// A file for every part and message, renamed into place when it is whole.
class FileGroup : public NcclGroup {
public:
    FileGroup(const std::filesystem::path& folder, const std::string& name, int ranks) : prefix_((folder / name).string()), ranks_(ranks) {
        std::filesystem::create_directories(folder);
    }
    void publish(int64_t collective, int rank, Bytes bytes) override { write(part(collective, rank), bytes); }
    bool all_published(int64_t collective) override {
        for (int r = 0; r < ranks_; ++r)
            if (!std::filesystem::exists(part(collective, r))) return false;
        return true;
    }
    // Whoever has published this collective has taken the one before.
    std::vector<Bytes> take(int64_t collective, int rank) override {
        std::vector<Bytes> sent;
        for (int r = 0; r < ranks_; ++r) sent.push_back(read(part(collective, r)));
        if (collective > 0) std::filesystem::remove(part(collective - 1, rank));
        return sent;
    }
    void send(int from, int to, Bytes bytes) override { write(message(from, to, sent_[to]++), bytes); }
    bool has_sent(int from, int to) override { return std::filesystem::exists(message(from, to, received_[from])); }
    Bytes receive(int from, int to) override {
        const std::string file = message(from, to, received_[from]++);
        Bytes bytes = read(file);
        std::filesystem::remove(file);
        return bytes;
    }

private:
    std::string part(int64_t collective, int rank) const { return fmt::format("{}.{}.of-{}", prefix_, collective, rank); }
    std::string message(int from, int to, int64_t number) const { return fmt::format("{}.{}-to-{}.{}", prefix_, from, to, number); }

    static void write(const std::string& path, const Bytes& bytes) {
        const std::string unfinished = path + "~";
        std::FILE* const file = std::fopen(unfinished.c_str(), "wb");
        const bool whole = file && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
        if ((file && std::fclose(file) != 0) || !whole) flanmoe::fail(flanmoe::Exit::io, "the simulator cannot write {}", unfinished);
        std::filesystem::rename(unfinished, path);
    }
    static Bytes read(const std::string& path) {
        Bytes bytes(std::filesystem::file_size(path));
        std::FILE* const file = std::fopen(path.c_str(), "rb");
        const bool whole = file && std::fread(bytes.data(), 1, bytes.size(), file) == bytes.size();
        if (file) std::fclose(file);
        if (!whole) flanmoe::fail(flanmoe::Exit::io, "the simulator cannot read {}", path);
        return bytes;
    }

    std::string prefix_;
    int ranks_;
    std::map<int, int64_t> sent_, received_;  // messages of this rank, by the other one
};

}  // namespace

std::unique_ptr<NcclGroup> group_of_threads(int ranks) { return std::make_unique<ThreadGroup>(ranks); }

std::unique_ptr<NcclGroup> group_of_processes(const std::filesystem::path& folder, const std::string& name, int ranks) {
    look_around_while_waiting();
    return std::make_unique<FileGroup>(folder, name, ranks);
}

}  // namespace cudasim
