// Steps of training with a sharded optimizer: the bits of the weights are those of a run that is not sharded, on any layout, in every type; checkpoints are the
// same files; and all ranks together hold state, and master weights, once.
#include "checkpoint/checkpoint.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/temporary_folder.hpp"
#include "model/layouts.hpp"
#include "optim/freezing.hpp"
#include "train/replicas.hpp"

#include <doctest/doctest.h>

#include <cstring>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

const MeshShape layouts[] = {{2, 1, 1}, {4, 1, 1}, {2, 2, 1}, {2, 1, 2}, {1, 2, 2}};

struct Types {
    const char* name;
    DType compute, forward;
    double clip;  ///< in double the norm's last bits, which depend on the order of its sum, would show
};
const Types all_types[] = {{"f32", DType::f32, DType::f32, 0.5},
                           {"f64", DType::f64, DType::f64, 0},
                           {"bf16 with a forward in f32", DType::bf16, DType::f32, 0.5},
                           {"bf16", DType::bf16, DType::bf16, 0.5}};

OptimizerConfig optimizer_config(OptimizerKind kind) {
    OptimizerConfig config;
    config.kind = kind, config.min_factored = 8;
    if (kind == OptimizerKind::adamw) config.weight_decay = 0.1;
    return config;
}

/// A model in training on one rank.
struct Rank {
    const Mesh& mesh;
    Context context;
    Transformer model;
    std::optional<Optimizer> optimizer;
    std::optional<GradientSync> sync;
    std::optional<TrainingStep> step;

    Rank(const Mesh& on, const Types& types, OptimizerKind kind, bool sharded, const std::vector<std::string>& frozen = {}) : mesh(on), model(model_config(), on) {
        freeze_parameters(model.parameters(), frozen);
        if (sharded) model.parameters().shard();
        model.parameters().allocate(types.compute, true, types.forward, context);
        model.parameters().initialise(5);
        optimizer.emplace(optimizer_config(kind), model.parameters());
        sync.emplace(model.parameters(), 1 << 10);  // many buckets
        step.emplace(context, model, *optimizer, false, &*sync);
    }
    static ModelConfig model_config() {
        ModelConfig c = routed_model("loss_free", true);
        c.heads = 4, c.multiplicative_bias = true, c.dropout = 0.1, c.flanmoe_layout = true;
        return c;
    }
    StepGradients run(int64_t number, double clip, double largest_loss = std::numeric_limits<double>::infinity()) {
        StepSettings s;
        s.coefficients = {0.02, 0.003, 0.0001}, s.seed = 3, s.step = s.update = number, s.rate = 0.01, s.clip = clip, s.largest_loss = largest_loss;
        const auto seed = static_cast<uint64_t>(10 * number);
        return step->run(share_of({family_batch(model.config(), 4, seed), family_batch(model.config(), 4, seed + 1, 4)}, mesh), s);
    }
    SaveResult save(const std::filesystem::path& run, int64_t step) const {
        return save_checkpoint(run, step, model.config(), model.parameters(), {R"({"step":3})", "", optimizer->state()});
    }
    void load(const std::filesystem::path& checkpoint) {
        load_model(checkpoint, model.parameters());
        load_optimizer(checkpoint, optimizer->state());
    }
};

bool same(const Tensor& a, const Tensor& b) { return a.bytes() == b.bytes() && std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) == 0; }

/// Weights that this rank has, and state, against those of a rank that has all of them.
void compare(const Rank& sharded, const Rank& whole, Findings& findings) {
    const ParameterStore &store = sharded.model.parameters(), &reference = whole.model.parameters();
    for (size_t i = 0; i < store.records().size(); ++i) {
        const Parameter &p = store.records()[i], &q = reference.records()[i];
        for (int64_t e = 0; e < p.part_tensors(); ++e) {
            if (!same(store.compute(p, e), reference.compute(q, e))) findings.add("rank {}: {} in the compute copy", sharded.mesh.world().rank(), p.part_name(e));
            if (store.master(p, e) && !same(store.master(p, e), reference.master(q, e))) findings.add("rank {}: {}", sharded.mesh.world().rank(), p.part_name(e));
        }
    }
    for (size_t s = 0; s < sharded.optimizer->state().size(); ++s) {
        const NamedTensor &a = sharded.optimizer->state()[s], &b = whole.optimizer->state()[s];
        if (a.tensor && !same(a.tensor, b.tensor)) findings.add("rank {}: {}", sharded.mesh.world().rank(), a.name);
    }
}

void on_ranks(const MeshShape& shape, const std::function<void(const Mesh&, Findings&)>& body) {
    Findings findings;
    run_ranks(shape.ranks(), [&](Communicator& world) { body(Mesh(world, shape), findings); });
    CHECK(findings.text() == "");
}

}  // namespace

TEST_SUITE("train/sharding") {
    TEST_CASE("three steps: the bits of weights and state of a run that is not sharded, its losses and norms") {
        for (const OptimizerKind kind : {OptimizerKind::adafactor, OptimizerKind::adamw}) {
            for (const Types& types : all_types) {
                for (const MeshShape& shape : layouts) {
                    CAPTURE(static_cast<int>(kind));
                    CAPTURE(types.name);
                    CAPTURE(shape.text());
                    on_ranks(shape, [&](const Mesh& mesh, Findings& findings) {
                        Rank sharded(mesh, types, kind, true), whole(mesh, types, kind, false);
                        for (int64_t s = 0; s < 3; ++s) {
                            const StepGradients a = sharded.run(s, types.clip), b = whole.run(s, types.clip);
                            if (a.loss != b.loss) findings.add("loss {} of step {} instead of {}", a.loss, s, b.loss);
                            if (!(std::abs(a.gradient_norm - b.gradient_norm) <= 1e-14 * b.gradient_norm)) findings.add("norm {} of step {} instead of {}", a.gradient_norm, s, b.gradient_norm);
                        }
                        compare(sharded, whole, findings);
                        check_equal_weights(sharded.model.parameters(), mesh, 3);
                    });
                }
            }
        }
    }

    TEST_CASE("frozen parts stay, and a step that is refused changes nothing") {
        on_ranks({2, 2, 1}, [&](const Mesh& mesh, Findings& findings) {
            const std::vector<std::string> frozen = {"attention"};
            Rank sharded(mesh, all_types[3], OptimizerKind::adamw, true, frozen), whole(mesh, all_types[3], OptimizerKind::adamw, false, frozen);
            sharded.run(0, 0.5), whole.run(0, 0.5);
            sharded.run(1, 0.5, 1e-3);  // no loss is so small
            compare(sharded, whole, findings);
            sharded.run(2, 0.5), whole.run(2, 0.5);
            compare(sharded, whole, findings);
        });
    }

    TEST_CASE("checkpoints: the same files, read sharded or not, on another layout, with the bits that were written; then the curve goes on") {
        for (const Types& types : {all_types[0], all_types[3]}) {
            const TemporaryFolder folder;
            for (const bool sharded : {false, true}) {
                for (const MeshShape& shape : {MeshShape{2, 2, 1}, MeshShape{2, 1, 2}, MeshShape{4, 1, 1}, MeshShape{1, 2, 2}}) {
                    CAPTURE(types.name);
                    CAPTURE(shape.text());
                    const auto path = [&](const char* name) { return folder.path() / fmt::format("{}-{}{}{}", name, shape.data, shape.expert, shape.tensor); };
                    on_ranks(shape, [&](const Mesh& mesh, Findings& findings) {
                        Rank rank(mesh, types, OptimizerKind::adafactor, sharded), other(mesh, types, OptimizerKind::adafactor, !sharded);
                        for (int64_t s = 0; s < 2; ++s) rank.run(s, 0.5), other.run(s, 0.5);
                        if (!rank.save(path("own"), 2) || !other.save(path("other"), 2)) findings.add("not saved");
                        Rank read(mesh, types, OptimizerKind::adafactor, !sharded);
                        read.load(checkpoint_path(path("own"), 2));
                        sharded ? compare(rank, read, findings) : compare(read, rank, findings);
                        const StepGradients a = rank.run(2, 0.5), b = read.run(2, 0.5);
                        if (a.loss != b.loss) findings.add("the curve goes on with {} instead of {}", b.loss, a.loss);
                        sharded ? compare(rank, read, findings) : compare(read, rank, findings);
                    });
                    const Manifest own = read_manifest(checkpoint_path(path("own"), 2)), other = read_manifest(checkpoint_path(path("other"), 2));
                    CHECK(own.files.size() == other.files.size());
                    for (const auto& [name, file] : own.files) CHECK_MESSAGE((file.hash == other.files.at(name).hash), name);
                    std::filesystem::remove_all(path("other"));
                }
                std::filesystem::remove_all(folder.path());
            }
        }
    }

    TEST_CASE("a checkpoint of sharded ranks on one rank, and of one rank on sharded ranks") {
        const TemporaryFolder folder;
        Rank alone(one_rank(), all_types[3], OptimizerKind::adafactor, false);
        alone.run(0, 0.5);
        REQUIRE(alone.save(folder.path() / "one", 1));
        on_ranks({2, 2, 1}, [&](const Mesh& mesh, Findings& findings) {
            Rank rank(mesh, all_types[3], OptimizerKind::adafactor, true);
            rank.load(checkpoint_path(folder.path() / "one", 1));
            if (!rank.save(folder.path() / "many", 1)) findings.add("not saved");
        });
        Rank back(one_rank(), all_types[3], OptimizerKind::adafactor, false);
        back.load(checkpoint_path(folder.path() / "many", 1));
        Findings findings;
        compare(back, alone, findings);
        CHECK(findings.text() == "");
    }

    TEST_CASE("master weights that the forward does not read are held once by all ranks with the same tensors; others by each") {
        for (const Types& types : {all_types[2], all_types[3]}) {
            for (const MeshShape& shape : layouts) {
                CAPTURE(types.name);
                CAPTURE(shape.text());
                on_ranks(shape, [&](const Mesh& mesh, Findings& findings) {
                    const Rank rank(mesh, types, OptimizerKind::adamw, true);
                    const ParameterStore& store = rank.model.parameters();
                    // A replicated tensor's part by the number of ranks that hold it shall add up to one.
                    for (const Parameter& p : store.records()) {
                        std::vector<int64_t> holders;
                        for (int64_t e = 0; e < p.part_tensors(); ++e) holders.push_back(store.master(p, e) ? 1 : 0);
                        Context host;
                        const Tensor sums = host.upload(holders, {p.part_tensors()});
                        store.ranks_of(p).all_reduce(host, sums);
                        const bool everywhere = types.forward == DType::f32 || p.owners.empty() || p.full_precision;
                        for (const int64_t n : host.download<int64_t>(sums))
                            if (n != (everywhere ? store.ranks_of(p).size() : 1)) findings.add("{}: {} ranks have the master weights", p.name, n);
                    }
                });
            }
        }
    }
}
