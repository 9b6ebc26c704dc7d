#include "comm/agreement.hpp"

#include <numeric>

namespace flanmoe {

namespace {

struct Outcome {
    int32_t code = 0;
    std::string sentence;
};

Outcome outcome_of(const std::function<void()>& work) {
    try {
        work();
        return {};
    } catch (...) {
        const Error error = error_of(std::current_exception());
        return {static_cast<int32_t>(error.code), error.what()};
    }
}

}  // namespace

void together(Communicator& world, const std::function<void()>& work) {
    if (world.size() == 1) return work();
    const Outcome own = outcome_of(work);
    Context context;
    const Tensor code = context.upload(std::vector<int32_t>{own.code}, {1}), all = context.allocate(DType::i32, {world.size()});
    world.all_gather(context, code, all);
    const auto codes = context.download<int32_t>(all);
    for (int r = 0; r < world.size(); ++r) {
        const int32_t failed = codes[static_cast<size_t>(r)];
        if (failed == 0) continue;
        const std::string sentence = broadcast_text(world, own.sentence, r);
        throw SharedError(static_cast<Exit>(failed), r == 0 ? sentence : fmt::format("rank {}: {}", r, sentence));
    }
}

std::vector<std::string> gather_texts(Communicator& world, const std::string& text) {
    if (world.size() == 1) return {text};
    Context context;
    const auto n = static_cast<size_t>(world.size());
    const auto length = static_cast<int64_t>(text.size());
    const Tensor own = context.upload(std::vector<int64_t>{length}, {1}), all = context.allocate(DType::i64, {world.size()});
    world.all_gather(context, own, all);
    const std::vector<int64_t> lengths = context.download<int64_t>(all);
    const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    const Tensor out = context.upload(std::vector<uint8_t>(text.begin(), text.end()), {length, 1}), in = context.allocate(DType::u8, {total, 1});
    world.all_to_all(context, out, std::vector<RowBlock>(n, {0, length}), in, side_by_side(lengths));
    const auto bytes = context.download<uint8_t>(in);
    std::vector<std::string> texts;
    auto at = bytes.begin();
    for (const int64_t l : lengths) {
        texts.emplace_back(at, at + l);
        at += l;
    }
    return texts;
}

std::string broadcast_text(Communicator& world, const std::string& text, int root) {
    if (world.size() == 1) return text;
    Context context;
    const Tensor length = context.upload(std::vector<int64_t>{static_cast<int64_t>(text.size())}, {1});
    world.broadcast(context, length, root);
    std::vector<uint8_t> bytes(text.begin(), text.end());
    bytes.resize(static_cast<size_t>(context.download<int64_t>(length)[0]));
    const Tensor values = context.upload(bytes, {static_cast<int64_t>(bytes.size())});
    world.broadcast(context, values, root);
    bytes = context.download<uint8_t>(values);
    return std::string(bytes.begin(), bytes.end());
}

void require_same(Communicator& world, const char* what, const std::string& text, const char* advice) {
    const std::vector<std::string> texts = gather_texts(world, text);
    for (size_t r = 1; r < texts.size(); ++r)
        if (texts[r] != texts[0]) throw SharedError(Exit::usage, fmt::format("rank {} has another {} than rank 0 ({}, not {}); {}", r, what, texts[r], texts[0], advice));
}

}  // namespace flanmoe
