// A step divided over ranks: the same rows, each once, in order, in whole groups.
#include "data/loader.hpp"

#include "data/shard_folder.hpp"
#include "fixtures.hpp"

using namespace flanmoe;
using flanmoe::testing::small_tokenizer;
using flanmoe::testing::synthetic_text;
using flanmoe::testing::write_bytes;

namespace {

DataConfig pretraining(const TemporaryFolder& folder) {
    write_bytes(folder / "text/a.txt", synthetic_text(300, 1));
    build_shards({(folder / "text").string()}, *small_tokenizer(), folder / "shards", {});
    DataConfig config;
    config.objective = Objective::span_corruption;
    config.train = config.validation = {(folder / "shards").string()};
    config.encoder_length = 64;
    return config;
}

/// Appends the rows of batches that are not padding; fails if their numbers do not go on.
void append_rows(std::vector<std::vector<int32_t>>& rows, const std::vector<Batch>& batches) {
    for (const Batch& b : batches) {
        if (b.real_tokens() == 0) {  // padding
            CHECK(b.first_row >= static_cast<int64_t>(rows.size()));
            CHECK(b.target_tokens() == 0);
            continue;
        }
        CHECK(b.first_row == static_cast<int64_t>(rows.size()));
        for (int64_t r = 0; r < b.rows; ++r) {
            if (b.encoder_segments[static_cast<size_t>(r * b.encoder_length)] == 0) continue;  // padding behind a piece
            const auto at = [&](int64_t length, const std::vector<int32_t>& ids) { return std::pair{ids.begin() + r * length, ids.begin() + (r + 1) * length}; };
            const auto [first, last] = at(b.encoder_length, b.encoder_ids);
            rows.emplace_back(first, last);
            const auto [target, end] = at(b.decoder_length, b.decoder_targets);
            rows.back().insert(rows.back().end(), target, end);
        }
    }
}

}  // namespace

TEST_SUITE("data/share") {
    TEST_CASE("pieces cover the step once, in order, in whole groups, as many on every rank, none larger than a micro-batch") {
        for (int64_t group : {1, 2, 4})
            for (int64_t groups : {1, 3, 8, 13})
                for (int64_t micro : {1, 2, 5})
                    for (int count : {1, 2, 3, 8}) {
                        INFO(count << " ranks, " << groups << " groups of " << group << ", micro-batches of " << micro);
                        int64_t next = 0;
                        size_t pieces = 0;
                        for (int i = 0; i < count; ++i) {
                            const auto mine = Share{i, count, group}.pieces(groups * group, micro * group);
                            if (i > 0) CHECK(mine.size() == pieces);
                            const Share equal{i, count, group, true};
                            for (size_t k = 0; k < mine.size(); ++k) {
                                CHECK(equal.batch_rows(groups * group, micro * group, k) == Share{0, count, group, true}.batch_rows(groups * group, micro * group, k));
                                CHECK(equal.batch_rows(groups * group, micro * group, k) >= mine[k].rows);
                            }
                            pieces = mine.size();
                            for (const Share::Piece& piece : mine) {
                                if (piece.rows == 0) continue;
                                CHECK(piece.first == next);
                                CHECK(piece.rows % group == 0);
                                CHECK(piece.rows <= micro * group);
                                next += piece.rows;
                            }
                        }
                        CHECK(next == groups * group);
                        CHECK(static_cast<int64_t>(pieces) * micro * count >= groups);
                        CHECK((static_cast<int64_t>(pieces) - 1) * micro < (groups + count - 1) / count);
                    }
    }

    TEST_CASE("any number of ranks reads the same rows in the same order, also after a change of that number") {
        const TemporaryFolder folder;
        DataConfig config = pretraining(folder);
        config.batch_rows = 12, config.micro_batch_rows = 4;
        Loader one(config, small_tokenizer());
        std::vector<std::vector<std::vector<int32_t>>> steps(4);
        for (auto& step : steps) append_rows(step, one.next());
        for (int count : {2, 5, 16}) {
            CAPTURE(count);
            LoaderState middle;
            std::vector<std::vector<std::vector<int32_t>>> found(4);
            for (int i = 0; i < count; ++i) {
                Loader part(config, small_tokenizer(), {i, count, 2, count == 5});
                for (int s = 0; s < 2; ++s) append_rows(found[static_cast<size_t>(s)], part.next());
                middle = part.state();
            }
            for (int i = 0; i < 3; ++i) {  // goes on with three
                Loader part(config, small_tokenizer(), {i, 3, 2});
                part.restore(middle);
                for (size_t s = 2; s < 4; ++s) append_rows(found[s], part.next());
            }
            CHECK(found == steps);
        }
    }

    TEST_CASE("validation is divided too") {
        const TemporaryFolder folder;
        DataConfig config = pretraining(folder);
        config.validation_rows = 5, config.validation_batches = 3;
        const auto whole = validation_batches(config, *small_tokenizer());
        std::vector<std::vector<Batch>> parts;
        for (int i = 0; i < 8; ++i) parts.push_back(validation_batches(config, *small_tokenizer(), nullptr, {i, 8, 1}));
        for (size_t b = 0; b < whole.size(); ++b) {
            std::vector<std::vector<int32_t>> expected, found;
            append_rows(expected, {whole[b]});
            for (const auto& part : parts) {
                REQUIRE(part.size() == whole.size());
                append_rows(found, {part[b]});
            }
            CHECK(found == expected);
        }
    }
}
