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

RankMesh::RankMesh(World& world, const std::function<RankSettings()>& settings) {
    Communicator& ranks = world.ranks();
    RankSettings s;
    MeshShape shape;
    together(ranks, [&] {
        s = settings();
        shape = mesh_for({static_cast<int>(s.parallel.data), static_cast<int>(s.parallel.expert), static_cast<int>(s.parallel.tensor)}, ranks.size());
    });
    require_same(ranks, s.text_name, hash_bytes(s.text), "start all ranks with the same files and settings");
    require_same(ranks, "flanmoe program", program_hash(), "install the same build on all machines");
    world.set_limits(s.parallel.patience, s.parallel.timeout);
    const int place = place_on_host(ranks).number;
    together(ranks, [&] { context_ = std::make_unique<DeviceContext>(s.device, place); });
    context_->activity = &world.activity();
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
