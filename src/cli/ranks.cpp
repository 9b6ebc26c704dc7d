#include "cli/ranks.hpp"

#include "checkpoint/hashed_file.hpp"
#include "comm/agreement.hpp"
#include "comm/device_ranks.hpp"
#include "comm/world.hpp"
#include "core/file.hpp"
#include "core/log.hpp"
#include "train/rank_log.hpp"
#include "train/replicas.hpp"

#include <algorithm>
#include <optional>

namespace flanmoe::cli {

namespace {

// The first option that differs, and how many more do.
std::string compare_configs(const std::string& of_rank_0, const std::string& own) {
    const std::vector<Difference> all = differences(parse_config(of_rank_0, "rank 0's config", false), parse_config(own, "this rank's config", false));
    if (all.empty()) return "written otherwise";
    return fmt::format("{} = {}, not {}{}", all[0].key, all[0].new_value, all[0].old_value, all.size() > 1 ? fmt::format(", and {} more differ", all.size() - 1) : "");
}

// The first word that differs.
std::string compare_commands(const std::string& of_rank_0, const std::string& own) {
    const auto word_at = [](const std::string& words, size_t at) {
        const size_t begin = at == 0 ? 0 : words.rfind('\0', at - 1) + 1;
        return begin < words.size() ? "\"" + words.substr(begin, words.find('\0', begin) - begin) + "\"" : "nothing";
    };
    const auto at = static_cast<size_t>(std::mismatch(own.begin(), own.end(), of_rank_0.begin(), of_rank_0.end()).first - own.begin());
    return fmt::format("{}, not {}", word_at(own, at), word_at(of_rank_0, at));
}

// require_same() of texts too long to print: `compare` says what differs, in short.
void require_same_text(Communicator& ranks, const char* what, const std::string& text, std::string (*compare)(const std::string& of_rank_0, const std::string& own)) {
    const std::string first = broadcast_text(ranks, text);
    const std::vector<std::string> found = gather_texts(ranks, text == first ? "" : compare(first, text));
    for (size_t r = 0; r < found.size(); ++r)
        if (!found[r].empty()) throw SharedError(Exit::usage, fmt::format("rank {} has another {} than rank 0 ({}); start all ranks with the same files and settings", r, what, found[r]));
}

}  // namespace

RankMesh::RankMesh(World& world, const std::function<RankSettings()>& settings) {
    Communicator& ranks = world.ranks();
    RankSettings s;
    MeshShape shape;
    together(ranks, [&] {
        s = settings();
        shape = mesh_for({static_cast<int>(s.parallel.data), static_cast<int>(s.parallel.expert), static_cast<int>(s.parallel.tensor)}, ranks.size());
    });
    require_same_text(ranks, "config", s.config, compare_configs);
    require_same_text(ranks, "command line", s.command, compare_commands);
    require_same(ranks, "flanmoe program", program_hash(), "install the same build on all machines");
    world.set_limits(s.parallel.patience, s.parallel.timeout);
    const int place = place_on_host(ranks).number;
    together(ranks, [&] { context_ = std::make_unique<DeviceContext>(s.device, place); });
    context_->activity = &world.activity();
    if (ranks.size() > 1)
        over_nccl_ = device_ranks(*context_, ranks, world.progress(), [&](const std::string& sentence) { world.give_up(Exit::rank_failed, sentence); });
    if (s.device == Device::cuda && ranks.size() > 1)
        info("ranks exchange tensors {}", over_nccl_ ? "over NCCL" : "over MPI, staged through host memory, since some share a GPU");
    mesh_ = std::make_unique<Mesh>(over_nccl_ ? *over_nccl_ : ranks, shape);
}

void on_ranks(const char* what, const std::function<RankSettings()>& settings, const std::function<void(const RankMesh&)>& work) {
    const std::optional<Launch> started = launch();
    const RankLog log(started ? started->rank : 0);
    World world([&](const World::Trouble& trouble) { log.say(trouble.sentence); });
    world.activity().step = no_steps, world.activity().part = what;
    world.run([&] { work(RankMesh(world, settings)); });
}

void refuse_ranks(const std::string& what) {
    const std::optional<Launch> started = launch();
    if (started && started->ranks > 1) throw SharedError(Exit::usage, fmt::format("{} runs on one rank, but {} were started; give the command without a launcher", what, started->ranks));
}

std::string command_line() {
    const std::string words = read_file("/proc/self/cmdline");
    return words.substr(std::min(words.size(), words.find('\0')));
}

}  // namespace flanmoe::cli
