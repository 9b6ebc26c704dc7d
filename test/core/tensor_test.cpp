// Tensor views and bfloat16.
#include "core/tensor.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace flanmoe;

TEST_SUITE("core/tensor") {
    TEST_CASE("bf16 rounds to nearest even") {
        const auto rounded = [](float x) { return static_cast<float>(bf16(x)); };
        CHECK(rounded(1.0f) == 1.0f);
        CHECK(rounded(1.0f + 0x1p-9f) == 1.0f);                  // below half a unit of 2^-7
        CHECK(rounded(1.0f + 0x1p-8f) == 1.0f);                  // a tie, to even
        CHECK(rounded(1.0f + 0x1p-8f + 0x1p-20f) == 1.0f + 0x1p-7f);
        CHECK(rounded(1.0f + 0x1.8p-7f) == 1.0f + 0x1p-6f);      // a tie, to even, upwards
        CHECK(rounded(-1.0f - 0x1p-8f) == -1.0f);
        CHECK(rounded(3.4e38f) == std::numeric_limits<float>::infinity());
        CHECK(rounded(-INFINITY) == -INFINITY);
        CHECK(std::signbit(rounded(-0.0f)));
        CHECK(rounded(0x1p-133f) == 0x1p-133f);                  // subnormal
    }

    TEST_CASE("every bf16 goes to float and back unchanged; every NaN stays one") {
        for (uint32_t bits = 0; bits < 65536; ++bits) {
            bf16 value;
            value.bits = static_cast<uint16_t>(bits);
            const float wide = value;
            if (std::isnan(wide))
                REQUIRE(std::isnan(static_cast<float>(bf16(wide))));
            else
                REQUIRE(bf16(wide).bits == bits);
        }
        // A NaN whose payload lies in the dropped half must not become infinity.
        CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u)))));
        CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0xffffffffu)))));
    }

    TEST_CASE("sizes and types") {
        CHECK(size_of(DType::bf16) == 2);
        CHECK(size_of(DType::f32) == 4);
        CHECK(size_of(DType::i32) == 4);
        CHECK(size_of(DType::f64) == 8);
        CHECK(size_of(DType::i64) == 8);
        CHECK(size_of(DType::u8) == 1);
        CHECK(accumulate_type(DType::bf16) == DType::f32);
        CHECK(accumulate_type(DType::f32) == DType::f32);
        CHECK(accumulate_type(DType::f64) == DType::f64);
        CHECK(std::string(name_of(DType::bf16)) == "bf16");
        CHECK(Shape({8, 512}).text() == "[8, 512]");
        CHECK(Shape().text() == "[]");
        CHECK(Shape().elements() == 1);
        CHECK(Shape({3, 0, 5}).elements() == 0);
        CHECK(Shape({2, 3})[-1] == 3);
        CHECK(Shape({2, 3}) == Shape({2, 3}));
        CHECK_FALSE(Shape({2, 3}) == Shape({3, 2}));
        CHECK_FALSE(Shape({2, 3}) == Shape({2, 3, 1}));
        CHECK_THROWS_AS(Shape({1, 1, 1, 1, 1}), Error);
    }

    TEST_CASE("views: columns, rows, reshaping") {
        float data[24];
        for (int i = 0; i < 24; ++i) data[i] = static_cast<float>(i);
        const Tensor t(data, DType::f32, {2, 2, 6});
        CHECK(t.rows() == 4);
        CHECK(t.cols() == 6);
        CHECK(t.ld == 6);
        CHECK(t.bytes() == 96);
        CHECK(t.compact());

        const Tensor columns = t.columns(2, 3);
        CHECK(columns.rows() == 4);
        CHECK(columns.cols() == 3);
        CHECK(columns.ld == 6);
        CHECK_FALSE(columns.compact());
        CHECK(columns.as<float>()[1 * columns.ld + 1] == 9.0f);
        CHECK_THROWS_AS(columns.view({12}), Error);

        const Tensor rows = columns.slice_rows(1, 2);
        CHECK(rows.shape == Shape{2, 3});
        CHECK(rows.as<float>()[0] == 8.0f);
        CHECK(rows.as<float>()[rows.ld + 2] == 16.0f);
        CHECK(rows.slice_rows(1, 1).compact());  // a single row always is

        CHECK(t.view({4, 6}).as<float>()[23] == 23.0f);
        CHECK_THROWS_AS(t.view({5, 5}), Error);
        CHECK_THROWS_AS(t.as<double>(), Error);
        CHECK_FALSE(static_cast<bool>(Tensor()));
        CHECK(Tensor(data, DType::f32, {0, 6}).rows() == 0);
        CHECK(Tensor(data, DType::f32, {3, 0}).rows() == 0);
    }
}
