// What inspect shows: folding, kinds and active parameters, statistics against plain formulas, distances of experts, verification.
#include "checkpoint/inspection.hpp"

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/small_store.hpp"
#include "checkpoint/temporary_folder.hpp"
#include "checkpoint/tensor_statistics.hpp"
#include "checkpoint/tensor_tree.hpp"
#include "core/file.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <deque>

using namespace flanmoe;
namespace fs = std::filesystem;

namespace {

// "label|copies" of every row.
std::vector<std::string> rows(const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors, bool fold = true) {
    std::deque<TensorEntry> entries;
    std::vector<const TensorEntry*> pointers;
    for (const auto& [name, shape] : tensors) {
        entries.push_back({name, StoredType::f32, shape, 0, 0});
        pointers.push_back(&entries.back());
    }
    std::vector<std::string> labels;
    for (const TreeRow& row : tensor_tree(pointers, fold)) {
        if (row.leaf && row.copies == 1) CHECK(row.path == printable(row.tensors[0]->name));
        labels.push_back(fmt::format("{}{}|{}", row.guide, row.label, row.copies));
    }
    return labels;
}

using Rows = std::vector<std::string>;

HostTensor filled(Shape shape, std::initializer_list<float> values) {
    HostTensor tensor(DType::f32, shape);
    std::copy(values.begin(), values.end(), tensor.as<float>());
    return tensor;
}

fs::path write(const TemporaryFolder& folder, const std::string& name, std::initializer_list<std::pair<const char*, const HostTensor*>> tensors) {
    SafetensorsWriter writer;
    for (const auto& [tensor_name, tensor] : tensors) writer.add(tensor_name, tensor->view());
    writer.write(folder / name);
    return folder / name;
}

}  // namespace

TEST_SUITE("checkpoint/inspection") {
    TEST_CASE("layers and experts fold when they look the same") {
        CHECK(rows({{"b.0.w", {2}}, {"b.1.w", {2}}, {"b.2.w", {2}}, {"b.10.w", {2}}, {"b.3.w", {3}}}) == Rows{"b.0-2,10.w|4", "b.3.w|1"});
        CHECK(rows({{"m.expert_0.wi", {2}}, {"m.expert_0.wo", {3}}, {"m.expert_1.wi", {2}}, {"m.expert_1.wo", {3}}}) ==
              Rows{"m.expert_0,1|2", "├─ wi|2", "└─ wo|2"});
        CHECK(rows({{"a.q.w", {2}}, {"a.k.w", {2}}, {"a.o.w", {3}}, {"shared.weight", {4}}}) ==
              Rows{"shared.weight|1", "a|1", "├─ k,q.w|2", "└─ o.w|1"});
        CHECK(rows({{"b.0.w", {2}}, {"b.1.w", {2}}}, false) == Rows{"b.0.w|1", "b.1.w|1"});
        CHECK(rows({{"a", {2}}, {"a.b", {2}}}) == Rows{"a|1", "└─ b|1"});
        CHECK(rows({}).empty());
        CHECK(rows({{"..", {1}}, {"", {1}}}).size() >= 2);
    }

    TEST_CASE("names cannot command the terminal") {
        CHECK(printable("a\x1b[31m\n\x07") == "a\\x1b[31m\\n\\x07");
        CHECK(rows({{"x\x1b]0;title\x07", {1}}}) == Rows{"x\\x1b]0;title\\x07|1"});
    }

    TEST_CASE("kinds, totals, active parameters, training state of a checkpoint") {
        const TemporaryFolder folder;
        ParameterStore store;
        fill_small_store(store, 1);
        HostTensor slot = filled({3}, {1, 2, 3});
        const TrainingState state{R"({"step": 12, "stage": "pre\u001b[0mtrain", "data": {"shard": 3}})",
                                  "",
                                  {{"shared.weight.m", slot.view()}, {"shared.weight.v", slot.view()}}};
        const SaveResult saved = save_checkpoint(folder.path(), 12, small_config(), store, state);
        REQUIRE(saved);
        const Inspection found = inspect(saved.path);
        CHECK(found.kind == "flanmoe checkpoint");
        CHECK(found.parameters == store.parameter_count());
        CHECK(found.parameters_by_kind[static_cast<size_t>(TensorKind::embedding)] == 66);
        CHECK(found.parameters_by_kind[static_cast<size_t>(TensorKind::attention)] == 72);
        CHECK(found.parameters_by_kind[static_cast<size_t>(TensorKind::ffn)] == 30);
        CHECK(found.parameters_by_kind[static_cast<size_t>(TensorKind::router)] == 18);
        CHECK(found.parameters_by_kind[static_cast<size_t>(TensorKind::expert)] == 180);
        CHECK(found.parameters_by_kind[static_cast<size_t>(TensorKind::norm)] == 6);
        CHECK(*found.active == doctest::Approx(66 + 72 + 30 + 18 + 60 + 6));
        REQUIRE(found.training);
        CHECK(found.training->state[0] == std::pair<std::string, std::string>("step", "12"));
        CHECK(found.training->state[1].second == "pre\\x1b[0mtrain");
        CHECK(found.training->state[2].second == R"({"shard":3})");
        CHECK(found.training->optimizer.size() == 2);
        CHECK(found.training->optimizer[0].elements == 3);

        std::vector<std::string> checked;
        CHECK(verify_path(saved.path, checked).empty());
        CHECK(checked.size() == 4);
        std::string bytes = read_file(saved.path / "model.safetensors");
        bytes.back() ^= 1;
        write_file_atomically(saved.path / "model.safetensors", bytes);
        CHECK(verify_path(saved.path, checked).size() == 1);
        bytes[9] ^= 1;
        write_file_atomically(saved.path / "model.safetensors", bytes);
        CHECK(verify_path(saved.path, checked).size() > 1);
        CHECK_THROWS_AS(inspect(folder.path()), Error);  // the run, not a checkpoint
        CHECK_THROWS_AS(inspect(folder / "nothing"), Error);
    }

    TEST_CASE("statistics") {
        const TemporaryFolder folder;
        HostTensor odd = filled({6}, {0, -3, std::nanf(""), 5, INFINITY, 2}), large(DType::f32, {200000});
        double sum = 0, squares = 0;
        for (int i = 0; i < 200000; ++i) large.as<float>()[i] = 1000 + static_cast<float>(i % 7), sum += 1000 + i % 7;
        for (int i = 0; i < 200000; ++i) squares += (1000 + i % 7 - sum / 200000) * (1000 + i % 7 - sum / 200000);
        const SafetensorsFile file(write(folder, "x", {{"odd", &odd}, {"large", &large}}));
        const Statistics s = statistics(file, file.at("odd"));
        CHECK(s.count == 6);
        CHECK(s.non_finite == 2);
        CHECK(s.zeros == 1);
        CHECK(s.minimum == -3);
        CHECK(s.maximum == 5);
        CHECK(s.mean == 1);
        CHECK(s.norm() == doctest::Approx(std::sqrt(38.0)));
        CHECK(s.deviation() == doctest::Approx(std::sqrt(34.0 / 4)));
        const Statistics t = statistics(file, file.at("large"));
        CHECK(t.mean == doctest::Approx(sum / 200000).epsilon(1e-13));
        CHECK(t.deviation() == doctest::Approx(std::sqrt(squares / 200000)).epsilon(1e-9));
    }

    TEST_CASE("distance between experts") {
        const TemporaryFolder folder;
        HostTensor a = filled({2}, {1, 0}), b = filled({2}, {0, 1}), c = filled({2}, {1, 0});
        write(folder, "x", {{"l.experts.expert_0.w", &a}, {"l.experts.expert_1.w", &b}, {"l.experts.expert_10.w", &c}, {"other", &a}});
        const std::vector<ExpertSpread> spreads = expert_spreads(WeightFiles(folder / "x"));
        REQUIRE(spreads.size() == 1);
        CHECK(spreads[0].name == "l.experts.expert_{e}.w");
        CHECK(spreads[0].experts == 3);
        CHECK(spreads[0].least == 0);
        CHECK(spreads[0].most == doctest::Approx(std::sqrt(2.0)));
        CHECK(spreads[0].mean == doctest::Approx(2 * std::sqrt(2.0) / 3));
        CHECK(spreads[0].closest_a == 0);
        CHECK(spreads[0].closest_b == 10);
    }

    TEST_CASE("difference of two tensors and two configs") {
        const TemporaryFolder folder;
        HostTensor a = filled({2}, {3, 4}), b = filled({2}, {3, 4.5f});
        const WeightFiles left(write(folder, "x", {{"w", &a}})), right(write(folder, "y", {{"w", &b}}));
        const TensorDifference d = difference(left.find("w"), right.find("w"));
        CHECK_FALSE(d.equal);
        CHECK(d.largest == 0.5);
        CHECK(d.relative == doctest::Approx(0.1));
        CHECK(difference(left.find("w"), left.find("w")).equal);
        write_file_atomically(folder / "a.json", R"({"x":1,"y":{"z":2},"only":true})");
        write_file_atomically(folder / "b.json", R"({"x":1,"y":{"z":3},"new":"n"})");
        CHECK(config_differences(folder / "a.json", folder / "b.json") ==
              std::vector<std::string>{"only: true -> (absent)", "y.z: 2 -> 3", "new: (absent) -> n"});
    }
}
