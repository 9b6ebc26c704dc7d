// Model directories: round trips, shards, aliases, and every way in which files and parameters may fail to fit.
#include "checkpoint/model_directory.hpp"

#include "checkpoint/hashed_file.hpp"
#include "checkpoint/small_store.hpp"
#include "checkpoint/temporary_folder.hpp"
#include "core/file.hpp"

#include <doctest/doctest.h>

#include <functional>

using namespace flanmoe;
namespace fs = std::filesystem;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string refusal(const std::function<void()>& action, Exit code = Exit::bad_checkpoint) {
    try {
        action();
    } catch (const Error& error) {
        CHECK(error.code == code);
        return error.what();
    }
    return "";
}

// Loads into a store of other values; what is wrong, or "".
std::string load(const fs::path& folder, const ParameterStore& expected, bool tied = true) {
    ParameterStore store;
    fill_small_store(store, 99, tied);
    const std::string text = refusal([&] { load_model(folder, store); });
    if (text.empty()) CHECK(equal_weights(expected, store));
    return text;
}

// Rewrites a safetensors file with some tensors renamed, dropped (name "") or added.
void edit(const fs::path& path, const std::map<std::string, std::string>& names, const std::map<std::string, HostTensor>& more = {}) {
    std::map<std::string, HostTensor> tensors = load_all(path);
    for (const auto& [from, to] : names) {
        if (!to.empty()) tensors[to] = std::move(tensors.at(from));
        tensors.erase(from);
    }
    SafetensorsWriter writer;
    for (const auto& [name, tensor] : tensors) writer.add(name, tensor.view());
    for (const auto& [name, tensor] : more) writer.add(name, tensor.view());
    fs::path other = path;
    other += ".new";
    writer.write(other);
    fs::rename(other, path);
}

HostTensor copy_of(const fs::path& path, const std::string& name, float change = 0) {
    const SafetensorsFile file(path);
    HostTensor tensor = file.load(file.at(name));
    tensor.as<float>()[1] += change;
    return tensor;
}

std::map<std::string, HostTensor> one(const std::string& name, HostTensor tensor) {
    std::map<std::string, HostTensor> map;
    map.emplace(name, std::move(tensor));
    return map;
}

}  // namespace

TEST_SUITE("checkpoint/model_directory") {
    TEST_CASE("a saved model loads to the same bits, and every file has the hash that is returned") {
        for (const bool tied : {true, false}) {
            const TemporaryFolder folder;
            ParameterStore store;
            fill_small_store(store, 1, tied);
            const FileHashes hashes = save_model(folder / "m", small_config(tied), store, {{"spiece.model", "pieces"}});
            CHECK(load(folder / "m", store, tied) == "");
            CHECK(hashes.size() == 4);
            for (const auto& [name, hash] : hashes) CHECK(hash_file(folder / "m" / name) == hash);
            CHECK(hash_bytes("pieces") == hashes.at("spiece.model"));
            CHECK(read_model_config(folder / "m").tied == tied);
            CHECK(WeightFiles(folder / "m").find("encoder.block.1.layer.1.mlp.experts.expert_2.wi_1.weight"));
        }
    }

    TEST_CASE("bf16 weights: rounded once, routers kept in f32, stores of every type load them") {
        const TemporaryFolder folder;
        ParameterStore store, back, wide;
        fill_small_store(store, 1);
        save_model(folder / "m", small_config(), store, {}, {DType::bf16});
        const SafetensorsFile file(folder / "m" / "model.safetensors");
        CHECK(file.at("shared.weight").type == StoredType::bf16);
        CHECK(file.at("encoder.block.1.layer.1.mlp.router.classifier.weight").type == StoredType::f32);
        fill_small_store(back, 2);
        load_model(folder / "m", back);
        fill_small_store(wide, 2, true, DType::f64);
        load_model(folder / "m", wide);
        const Tensor exact = store.master(store.records()[0]), rounded = back.master(back.records()[0]), widened = wide.master(wide.records()[0]);
        for (int64_t i = 0; i < exact.elements(); ++i) {
            CHECK(rounded.as<float>()[i] == static_cast<float>(bf16(exact.as<float>()[i])));
            CHECK(widened.as<double>()[i] == static_cast<double>(rounded.as<float>()[i]));
        }
    }

    TEST_CASE("shards: cut at the limit, indexed, checked") {
        const TemporaryFolder folder;
        const fs::path model = folder / "m";
        ParameterStore store;
        fill_small_store(store, 1);
        save_model(model, small_config(), store);
        SaveModelOptions options;
        options.shard_bytes = 400;
        const FileHashes hashes = save_model(model, small_config(), store, {}, options);
        CHECK_FALSE(fs::exists(model / "model.safetensors"));  // the earlier, single file
        CHECK(hashes.count("model.safetensors.index.json"));
        const size_t shards = hashes.size() - 3;
        CHECK(shards > 2);
        CHECK(WeightFiles(model).files().size() == shards);
        CHECK(WeightFiles(model).tensors() == 1 + 3 + 1 + 1 + 6 + 1);
        CHECK(load(model, store) == "");

        const std::string index = read_file(model / "model.safetensors.index.json");
        const auto with_index = [&](const std::string& from, const std::string& to) {
            std::string text = index;
            text.replace(text.find(from), from.size(), to);
            write_file_atomically(model / "model.safetensors.index.json", text);
            return refusal([&] { WeightFiles files(model); });
        };
        const std::string first = fmt::format("model-00001-of-{:05}.safetensors", shards);
        CHECK(contains(with_index(first, "../" + first), "same folder"));
        CHECK(contains(with_index(first, "other.safetensors"), first));
        CHECK(contains(with_index("shared.weight", "sharex.weight"), "shared.weight"));
        CHECK(contains(with_index("\"encoder.final_layer_norm.weight\"", "\"shared.weight\""), "final_layer_norm"));
        CHECK(contains(with_index("weight_map", "weight_mop"), "weight_map is missing"));
        write_file_atomically(model / "model.safetensors.index.json", index);
        edit(model / first, {}, one("encoder.final_layer_norm.weight", HostTensor(DType::f32, {6})));
        CHECK(contains(refusal([&] { WeightFiles files(model); }), "final_layer_norm"));
        fs::remove(model / first);
        CHECK(contains(refusal([&] { WeightFiles files(model); }), "missing shard"));
    }

    TEST_CASE("aliases of the embedding are accepted if equal, whatever they are called") {
        const TemporaryFolder folder;
        const fs::path model = folder / "m", file = model / "model.safetensors";
        ParameterStore store;
        fill_small_store(store, 1);
        const auto fresh = [&] { save_model(model, small_config(), store); };
        for (const char* alias : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}) {
            fresh();
            edit(file, {}, one(alias, copy_of(file, "shared.weight")));
            CHECK(load(model, store) == "");
            CHECK(read_model_config(model).tied);
            fresh();
            edit(file, {}, one(alias, copy_of(file, "shared.weight", 0.5f)));
            CHECK(contains(load(model, store), alias));
            CHECK(read_model_config(model).tied == (alias != std::string("lm_head.weight")));  // a head of its own: untied, whatever the config says
        }
        fresh();
        edit(file, {{"shared.weight", "decoder.embed_tokens.weight"}});
        CHECK(load(model, store) == "");
        fresh();
        edit(file, {}, one("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight", HostTensor(DType::f32, {32, 2})));
        CHECK(load(model, store) == "");
        fresh();
        edit(file, {{"encoder.block.0.layer.1.mlp.wi.weight", "encoder.block.0.layer.1.DenseReluDense.wi.weight"}});
        CHECK(load(model, store) == "");
    }

    TEST_CASE("what does not fit is refused with the tensor's name") {
        const TemporaryFolder folder;
        const fs::path model = folder / "m", file = model / "model.safetensors";
        ParameterStore store;
        fill_small_store(store, 1);
        const auto fresh = [&] { save_model(model, small_config(), store); };
        const std::string expert = "encoder.block.1.layer.1.mlp.experts.expert_2.wi_1.weight";
        fresh();
        edit(file, {{expert, ""}});
        CHECK(contains(load(model, store), expert));
        fresh();
        edit(file, {}, one("encoder.block.9.bias", HostTensor(DType::f32, {2})));
        CHECK(contains(load(model, store), "encoder.block.9.bias"));
        fresh();
        edit(file, {{expert, ""}}, one(expert, HostTensor(DType::f32, {6, 5})));
        const std::string shapes = load(model, store);
        CHECK(contains(shapes, expert));
        CHECK(contains(shapes, "[6, 5]"));
        CHECK(contains(shapes, "[5, 6]"));
        CHECK(contains(load(model, store, false), expert));

        fresh();
        ModelConfig other = small_config();
        other.vocab_size = 12;
        save_model(model, other, store);
        CHECK(contains(refusal([&] { read_model_config(model); }), "vocab_size 12"));
        fresh();
        fs::remove(model / "config.json");
        refusal([&] { read_model_config(model); }, Exit::missing_input);
        fs::remove(file);
        CHECK(contains(refusal([&] { load_model(model, store); }, Exit::missing_input), "name the folder of a model"));
        write_file_atomically(model / "pytorch_model.bin", "");
        CHECK(contains(refusal([&] { load_model(model, store); }, Exit::missing_input), "pickle"));
        refusal([&] { read_model_config(folder / "nowhere"); }, Exit::missing_input);
    }
}
