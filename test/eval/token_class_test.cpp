// Classes of pieces: what holds no letter, what no text holds, function words, the rest.
#include "eval/token_class.hpp"

#include "data/fixtures.hpp"

using namespace flanmoe;

TEST_SUITE("eval/token_class") {
    TEST_CASE("pieces") {
        for (const char* piece : {"▁", "▁▁", ".", "▁,", "\n", "▁\n", "<0x0A>", "<0x2E>", "...", "▁(", "<", ">", "<>", "▁—", "。", "\xc2\xa0", "-"})
            CHECK_MESSAGE(class_of_piece(piece) == TokenClass::formatting, piece);
        for (const char* piece : {"<pad>", "</s>", "<unk>", "<extra_id_0>", "<|im_start|>", "<0xZZ>"}) CHECK_MESSAGE(class_of_piece(piece) == TokenClass::special, piece);
        for (const char* piece : {"▁the", "▁The", "▁of", "▁I", "▁you", "▁because"}) CHECK_MESSAGE(class_of_piece(piece) == TokenClass::stop_word, piece);
        for (const char* piece : {"the", "▁theory", "▁mill", "ing", "▁7", "3", "▁a.", "é", "▁日本", "<0x41>", "<0xE2>", "x>", "\xf0\x9f\x98\x80"})
            CHECK_MESSAGE(class_of_piece(piece) == TokenClass::other, piece);
    }

    TEST_CASE("of a vocabulary: every id, those beyond the pieces too") {
        const Tokenizer& tokenizer = *testing::small_tokenizer();
        const std::vector<TokenClass> classes = token_classes(tokenizer, tokenizer.vocabulary_rows());
        REQUIRE(static_cast<int64_t>(classes.size()) == tokenizer.vocabulary_rows());
        const auto of = [&](int64_t id) { return classes[static_cast<size_t>(id)]; };
        CHECK(of(tokenizer.pad_id()) == TokenClass::special);
        CHECK(of(tokenizer.eos_id()) == TokenClass::special);
        CHECK(of(tokenizer.unk_id()) == TokenClass::special);
        CHECK(of(tokenizer.sentinel(0)) == TokenClass::special);
        CHECK(of(tokenizer.vocabulary_rows() - 1) == TokenClass::special);
        for (const int32_t id : tokenizer.encode("the of.")) CHECK(of(id) != TokenClass::special);
        CHECK(of(tokenizer.encode(".").back()) == TokenClass::formatting);
    }
}
