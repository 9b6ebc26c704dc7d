#include "model/batch_tensors.hpp"

#include <cstring>

namespace flanmoe {

namespace {

constexpr int64_t alignment = 64;
constexpr int64_t padded(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

void check_ids(const std::vector<int32_t>& ids, int64_t vocabulary, const char* which) {
    for (const int32_t id : ids) {
        if (id < 0 || id >= vocabulary) {
            fail(Exit::bad_data, "the {} contain token {}, but the model has {} embeddings; use the tokenizer that the model was made for, or raise model.vocab_size", which,
                 id, vocabulary);
        }
    }
}

}  // namespace

int64_t packed_bytes(const Batch& b) {
    const auto bytes = [](const std::vector<int32_t>& values) { return padded(4 * static_cast<int64_t>(values.size())); };
    const auto mask = [](const std::vector<int32_t>& segments) { return padded(static_cast<int64_t>(segments.size())); };
    return bytes(b.encoder_ids) + bytes(b.encoder_segments) + mask(b.encoder_segments) + bytes(b.decoder_ids) + bytes(b.decoder_segments) + mask(b.decoder_segments) +
           bytes(b.decoder_targets) + bytes(b.prefix_ends);
}

BatchTensors pack(const ModelConfig& config, const Batch& b, void* host, void* device) {
    check_ids(b.encoder_ids, config.vocab_size, "inputs");
    check_ids(b.decoder_ids, config.vocab_size, "targets");
    char *to = static_cast<char*>(host), *at = static_cast<char*>(device);
    const auto place = [&]<class T>(const std::vector<T>& values, Shape shape) {
        const Tensor tensor(at, dtype_of<T>, shape);
        require(tensor.elements() == static_cast<int64_t>(values.size()), "as many values as rows and lengths say");
        if (!values.empty()) std::memcpy(to, values.data(), static_cast<size_t>(tensor.bytes()));
        to += padded(tensor.bytes()), at += padded(tensor.bytes());
        return tensor;
    };
    // From the batch if it says who may be routed, else wherever there is no padding.
    const auto mask = [&](const std::vector<uint8_t>& given, const std::vector<int32_t>& segments) {
        const Shape shape = {static_cast<int64_t>(segments.size())};
        if (!given.empty()) return place(given, shape);
        std::vector<uint8_t> routed(segments.size());
        for (size_t i = 0; i < segments.size(); ++i) routed[i] = segments[i] != 0;
        return place(routed, shape);
    };
    const Shape encoder = {b.rows, b.encoder_length}, decoder = {b.rows * b.targets_per_row, b.decoder_length};
    BatchTensors t;
    t.rows = b.rows, t.encoder_length = b.encoder_length, t.decoder_length = b.decoder_length, t.first_row = b.first_row, t.targets_per_row = b.targets_per_row;
    t.encoder_ids = place(b.encoder_ids, encoder), t.encoder_segments = place(b.encoder_segments, encoder);
    t.encoder_routed = mask(b.encoder_routed, b.encoder_segments);
    t.decoder_ids = place(b.decoder_ids, decoder), t.decoder_segments = place(b.decoder_segments, decoder);
    t.decoder_routed = mask(b.decoder_routed, b.decoder_segments);
    if (!b.decoder_targets.empty()) t.targets = place(b.decoder_targets, {decoder.sizes[0] * b.decoder_length});
    if (!b.prefix_ends.empty()) t.prefix_ends = place(b.prefix_ends, decoder);
    return t;
}

BatchTensors upload(Context& context, const ModelConfig& config, const Batch& batch) {
    std::vector<uint8_t> packed(static_cast<size_t>(packed_bytes(batch)));
    const Tensor memory = context.allocate(DType::u8, {static_cast<int64_t>(packed.size())});
    const BatchTensors tensors = pack(config, batch, packed.data(), memory.data);
    context.engine->upload(memory.data, packed.data(), memory.bytes());
    return tensors;
}

}  // namespace flanmoe
