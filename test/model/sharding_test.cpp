// Owners of tensors: everyone has nearly as much, runs of the flat order, the same on every rank; and what a sharded store holds.
#include "model/sharding.hpp"

#include "model/layouts.hpp"

#include <doctest/doctest.h>

#include <numeric>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

ModelConfig sparse_model() {
    ModelConfig c = routed_model("st_moe", true);
    c.heads = 4, c.multiplicative_bias = true;
    return c;
}

/// Elements by owner of the dense tensors, or of one expert rank's experts.
std::vector<int64_t> owned_elements(const std::vector<Parameter>& records, const MeshShape& mesh, bool divided) {
    const auto owners = owners_of(records, mesh);
    std::vector<int64_t> sums(static_cast<size_t>(divided ? mesh.data : mesh.replicas()));
    for (size_t i = 0; i < records.size(); ++i)
        if (divided == (records[i].experts > 0 && mesh.expert > 1))
            for (const int owner : owners[i]) sums[static_cast<size_t>(owner)] += records[i].shape.elements();
    return sums;
}

}  // namespace

TEST_SUITE("model/sharding") {
    TEST_CASE("shares differ by no more than a tensor, and nothing is without an owner but what everyone updates") {
        const Transformer model(sparse_model());
        const std::vector<Parameter>& records = model.parameters().records();
        int64_t largest = 0, owned = 0, experts = 0, free = 0;
        for (const Parameter& p : records) {
            (is_owned(p) ? owned : free) += p.elements();
            if (is_owned(p) && p.experts) experts += p.elements();
            if (is_owned(p)) largest = std::max(largest, p.shape.elements());
        }
        CHECK(free < owned / 10);
        for (const MeshShape& mesh : {MeshShape{2, 1, 1}, MeshShape{3, 1, 1}, MeshShape{8, 1, 2}, MeshShape{2, 2, 1}, MeshShape{1, 4, 1}}) {
            CAPTURE(mesh.text());
            int64_t all = 0;
            for (const bool divided : {false, true}) {
                const std::vector<int64_t> sums = owned_elements(records, mesh, divided);
                const int64_t total = std::accumulate(sums.begin(), sums.end(), int64_t{0}), mean = total / static_cast<int64_t>(sums.size());
                for (const int64_t sum : sums) CHECK(std::abs(sum - mean) <= largest);
                all += divided ? total * mesh.expert : total;
            }
            CHECK(all == (mesh.data > 1 ? owned : owned - experts));  // whoever has experts alone is not their owner
        }
        for (const std::vector<int>& owners : owners_of(records, {1, 1, 4})) CHECK(owners.empty());
    }

    TEST_CASE("every rank comes to the same owners; master weights are the owner's alone where the forward reads the compute copy") {
        for (const DType forward : {DType::bf16, DType::f32}) {
            for (const MeshShape& shape : {MeshShape{2, 1, 1}, MeshShape{2, 2, 1}, MeshShape{2, 1, 2}, MeshShape{1, 2, 2}}) {
                CAPTURE(shape.text());
                Findings findings;
                run_ranks(shape.ranks(), [&](Communicator& world) {
                    const Mesh mesh(world, shape);
                    Transformer model(sparse_model(), mesh), whole(sparse_model(), mesh);
                    ParameterStore &store = model.parameters(), &reference = whole.parameters();
                    store.shard();
                    store.allocate(DType::bf16, true, forward), reference.allocate(DType::bf16, true, forward);
                    store.initialise(3), reference.initialise(3);
                    const auto expected = owners_of(Transformer(sparse_model()).parameters().records(), shape);
                    for (size_t i = 0; i < store.records().size(); ++i) {
                        const Parameter& p = store.records()[i];
                        if (p.owners != expected[i]) findings.add("{}: other owners", p.name);
                        for (int64_t e = 0; e < p.part_tensors(); ++e) {
                            const bool here = forward == DType::f32 || p.full_precision || store.updates(p, e);
                            if (bool(store.master(p, e)) != here) findings.add("{} is {} rank {}", p.part_name(e), here ? "not on" : "on", world.rank());
                            if (here && values_of(store.master(p, e)) != values_of(reference.master(p, e))) findings.add("{}: other weights", p.part_name(e));
                            const Tensor own = store.compute(p, e), theirs = reference.compute(p, e);
                            if (std::memcmp(own.data, theirs.data, static_cast<size_t>(own.bytes())) != 0) findings.add("{}: another compute copy", p.part_name(e));
                        }
                    }
                });
                CHECK(findings.text() == "");
            }
        }
    }
}
