// Adafactor of tensors that ranks share along a dimension: the parts' updates are those of the whole tensor. One thread plays all ranks: what a part gives to
// an exchange is recorded in one run, and the sum handed to all in the next.
#include "ops/check.hpp"
#include "ops/optimizer.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstring>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Case {
    Shape shape;
    int shared;
    int64_t first, last;  // parts: [0, first), [first, last), [last, size)
};
const Case cases[] = {{{300, 257}, 0, 140, 150}, {{300, 257}, 1, 1, 200}, {{136, 128}, 0, 20, 130}, {{136, 128}, 1, 64, 65}, {{128, 128}, 0, 64, 100},
                      {{128, 128}, 1, 64, 100},  {{140, 1030}, 1, 515, 600}, {{100, 30}, 0, 33, 66},  {{100, 30}, 1, 10, 20}, {{40000}, 0, 1, 20000}};
constexpr int parts = 3;

/// Rows or columns [begin, end) of a tensor, as a compact copy; of a vector elements.
Tensor cut(Context& context, const Tensor& t, int dimension, int64_t begin, int64_t end) {
    const bool columns = dimension == t.shape.rank - 1;
    Shape shape = t.shape;
    shape.sizes[static_cast<size_t>(dimension)] = end - begin;
    return convert(context, columns ? t.columns(begin, end - begin) : Tensor(t.slice_rows(begin, end - begin).data, t.dtype, shape), t.dtype);
}

/// Part of a whole tensor's state and gradient.
ops::AdafactorTensor part_of(Context& context, const ops::AdafactorTensor& whole, const Case& c, int part) {
    const int64_t bounds[] = {0, c.first, c.last, c.shape[c.shared]};
    const int64_t begin = bounds[part], end = bounds[part + 1];
    const auto along = [&](const Tensor& state, bool shared) { return shared ? cut(context, state, 0, begin, end) : convert(context, state, state.dtype); };
    ops::AdafactorTensor t;
    t.parameter = cut(context, whole.parameter, c.shared, begin, end), t.gradient = cut(context, whole.gradient, c.shared, begin, end);
    if (whole.v) t.v = cut(context, whole.v, c.shared, begin, end);
    else t.v_row = along(whole.v_row, (c.shared == 0) == ops::rows_are_smaller(whole)), t.v_col = along(whole.v_col, (c.shared == 1) == ops::rows_are_smaller(whole));
    t.shared = c.shared, t.whole = c.shape[c.shared];
    return t;
}

void compare_part(Context& context, const char* what, const Tensor& got, const Tensor& expected, DType type) {
    if (got) compare(what, got, convert(context, expected, DType::f64), type, Kind::reduction);
}

}  // namespace

TEST_SUITE("ops/optimizer_shared") {
    TEST_CASE("parts of a tensor change as the whole one does, beside a tensor that nobody shares") {
        for (const Case& c : cases) {
            for (const DType type : {DType::f64, DType::f32}) {
                CAPTURE(c.shape.text());
                CAPTURE(c.shared);
                TestContext context;
                ops::AdafactorTensor whole;
                whole.parameter = random(context, type, c.shape, 1), whole.gradient = random(context, type, c.shape, 2);
                if (ops::adafactor_factors(c.shape, 128)) {
                    const int64_t smaller = std::min(c.shape[0], c.shape[1]), larger = std::max(c.shape[0], c.shape[1]);
                    whole.v_row = random(context, type, {smaller}, 3), whole.v_col = random(context, type, {larger}, 4);
                    for (const Tensor& v : {whole.v_row, whole.v_col})
                        for (int64_t i = 0; i < v.elements(); ++i) set(v, 0, i, std::abs(get(v, 0, i)));
                } else {
                    whole.v = convert(context, whole.gradient, type);
                    for (int64_t r = 0; r < whole.v.rows(); ++r)
                        for (int64_t i = 0; i < whole.v.cols(); ++i) set(whole.v, r, i, get(whole.v, r, i) * get(whole.v, r, i));
                }
                ops::AdafactorSettings settings;
                settings.rate = 0.1, settings.decay = 0.75, settings.gradient_scale = 0.5, settings.clipping_threshold = 0.5;

                std::array<std::vector<double>, 2> sums;  // of the two exchanges, over all parts
                std::vector<ops::AdafactorTensor> ends;
                for (const size_t known : {0, 1, 2}) {
                    for (int part = 0; part < parts; ++part) {
                        ops::AdafactorTensor lone;
                        lone.parameter = random(context, type, {17, 3}, 7), lone.gradient = random(context, type, {17, 3}, 8), lone.v = context.zeros(type, {17, 3});
                        const ops::AdafactorTensor own = part_of(context, whole, c, part), both[] = {lone, own};
                        size_t exchange = 0;
                        settings.add_parts = [&](const Tensor& t) {
                            std::vector<double> values = context.download<double>(t);
                            if (exchange < known) {
                                context.engine->upload(t.data, sums[exchange].data(), t.bytes());
                            } else if (exchange == known) {
                                sums[exchange].resize(values.size());
                                for (size_t i = 0; i < values.size(); ++i) sums[exchange][i] += values[i];
                            }
                            ++exchange;
                        };
                        ops::adafactor(context, both, settings);
                        CHECK(exchange == 2);
                        if (known == 2) ends.push_back(own);
                    }
                }
                ops::adafactor(context, {&whole, 1}, settings);
                for (int part = 0; part < parts; ++part) {
                    const ops::AdafactorTensor expected = part_of(context, whole, c, part), &got = ends[static_cast<size_t>(part)];
                    compare_part(context, "adafactor parameter in parts", got.parameter, expected.parameter, type);
                    compare_part(context, "adafactor state in parts", got.v, expected.v, type);
                    compare_part(context, "adafactor state in parts", got.v_row, expected.v_row, type);
                    compare_part(context, "adafactor state in parts", got.v_col, expected.v_col, type);
                }
            }
        }
    }
}
