// Checkpoints do not tell the layout: every one writes the same bytes, and reads what any other has written.
#include "checkpoint/checkpoint.hpp"

#include "checkpoint/manifest.hpp"
#include "checkpoint/temporary_folder.hpp"
#include "model/layouts.hpp"

#include <doctest/doctest.h>

#include <cstring>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

const MeshShape layouts[] = {{1, 1, 1}, {2, 1, 1}, {1, 2, 1}, {1, 1, 2}, {2, 2, 1}, {1, 2, 2}, {1, 1, 4}, {2, 2, 2}};

ModelConfig sparse_model() {
    ModelConfig c = routed_model("loss_free", true);
    c.heads = 4, c.multiplicative_bias = true, c.flanmoe_layout = true;
    return c;
}

// One rank's model and optimizer, after a step or untouched.
struct Trained {
    Transformer model;
    Context context;
    std::optional<Optimizer> optimizer;

    Trained(const Mesh& mesh, bool step) : model(sparse_model(), mesh) {
        model.parameters().allocate(DType::f32, true);
        OptimizerConfig settings;
        settings.min_factored = 8;
        optimizer.emplace(settings, model.parameters());
        if (!step) return;
        model.parameters().initialise(7);
        // State that differs from element to element and does not depend on the layout, with a negative zero.
        for (const NamedTensor& t : optimizer->state()) {
            if (!t.tensor) continue;
            HostTensor whole(DType::f32, t.shape());
            for (int64_t i = 0; i < t.shape().elements(); ++i) whole.as<float>()[i] = i == 1 ? -0.0f : static_cast<float>(i % 977) + static_cast<float>(t.name.size());
            const HostTensor part = t.slice.split == Split::none ? std::move(whole) : cut_part(whole, t.slice, t.tensor.shape);
            std::memcpy(t.tensor.data, part.memory.get(), static_cast<size_t>(t.tensor.bytes()));
        }
    }
    TrainingState state() const { return {R"({"step":3})", "", optimizer->state()}; }
};

void run_on(const MeshShape& shape, const std::function<void(const Mesh&)>& body) {
    run_ranks(shape.ranks(), [&](Communicator& world) { body(Mesh(world, shape)); });
}

bool same(const Tensor& a, const Tensor& b) { return a.elements() == b.elements() && std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) == 0; }

}  // namespace

TEST_SUITE("checkpoint/layouts") {
    TEST_CASE("written on each of eight layouts: the same files; loaded on each other: the same bits") {
        const TemporaryFolder folder;
        std::map<std::string, Manifest::File> expected;
        for (size_t i = 0; i < std::size(layouts); ++i) {
            CAPTURE(layouts[i].text());
            const std::filesystem::path run = folder.path() / std::to_string(i);
            Findings findings;
            run_on(layouts[i], [&](const Mesh& mesh) {
                const Trained own(mesh, true);
                const SaveResult saved = save_checkpoint(run, 3, own.model.config(), own.model.parameters(), own.state());
                if (!saved || saved.path != checkpoint_path(run, 3) || saved.bytes == 0) findings.add("rank {}: {}", mesh.world().rank(), saved.problem);
            });
            CHECK(findings.text() == "");
            const Manifest manifest = read_manifest(checkpoint_path(run, 3));
            if (i == 0) expected = manifest.files;
            CHECK(manifest.files.size() == expected.size());
            for (const auto& [name, file] : manifest.files) CHECK_MESSAGE((file.hash == expected.at(name).hash), name);
            CHECK(verify_checkpoint(checkpoint_path(run, 3)).empty());
        }
        for (size_t i = 0; i < std::size(layouts); ++i) {
            for (size_t j = 0; j < std::size(layouts); ++j) {
                Findings findings;
                run_on(layouts[j], [&](const Mesh& mesh) {
                    const Trained written(mesh, true);
                    Trained read(mesh, false);
                    const std::filesystem::path from = checkpoint_path(folder.path() / std::to_string(i), 3);
                    load_model(from, read.model.parameters());
                    load_optimizer(from, read.optimizer->state());
                    for (size_t r = 0; r < written.model.parameters().records().size(); ++r) {
                        const Parameter& p = written.model.parameters().records()[r];
                        for (int64_t e = 0; e < p.part_tensors(); ++e)
                            if (!same(written.model.parameters().master(p, e), read.model.parameters().master(p, e))) findings.add("{}", p.part_name(e));
                    }
                    for (size_t s = 0; s < written.optimizer->state().size(); ++s) {
                        const NamedTensor &a = written.optimizer->state()[s], &b = read.optimizer->state()[s];
                        if (a.tensor && !same(a.tensor, b.tensor)) findings.add("{}", a.name);
                    }
                });
                CHECK(findings.text() == "");
            }
        }
    }

    TEST_CASE("shards of a small limit: the same files too") {
        const TemporaryFolder folder;
        CheckpointOptions options;
        options.model.shard_bytes = 20'000, options.model.weights = DType::bf16;
        std::vector<std::map<std::string, Manifest::File>> files;
        for (const MeshShape& shape : {MeshShape{1, 1, 1}, MeshShape{1, 2, 2}}) {
            const std::filesystem::path run = folder.path() / std::to_string(shape.ranks());
            run_on(shape, [&](const Mesh& mesh) {
                const Trained own(mesh, true);
                save_checkpoint(run, 3, own.model.config(), own.model.parameters(), own.state(), {}, options);
            });
            files.push_back(read_manifest(checkpoint_path(run, 3)).files);
        }
        CHECK(files[0].size() > 8);
        CHECK(files[0].size() == files[1].size());
        for (const auto& [name, file] : files[1]) CHECK_MESSAGE((file.hash == files[0].at(name).hash), name);
    }

    TEST_CASE("a save that fails on the writing rank fails on all, and the next one succeeds") {
        const TemporaryFolder folder;
        const std::filesystem::path run = folder.path() / "run";
        std::filesystem::create_directories(run / "checkpoints");
        ExtraFiles too_long;
        too_long[std::string(300, 'x')] = "a name that no file system takes: after the weights, before the optimizer's state";
        Findings findings;
        run_on({1, 2, 2}, [&](const Mesh& mesh) {
            const Trained own(mesh, true);
            const SaveResult failed = save_checkpoint(run, 3, own.model.config(), own.model.parameters(), own.state(), too_long);
            if (failed || failed.problem.empty()) findings.add("rank {} does not know of the failure", mesh.world().rank());
            const SaveResult saved = save_checkpoint(run, 4, own.model.config(), own.model.parameters(), own.state());
            if (!saved) findings.add("rank {}: {}", mesh.world().rank(), saved.problem);
        });
        CHECK(findings.text() == "");
        CHECK(list_checkpoints(run).size() == 1);
    }
}
