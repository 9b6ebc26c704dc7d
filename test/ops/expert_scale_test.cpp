// The multiplicative bias of experts against the formula, in every type, with experts without rows; its gradients.
#include "ops/expert_scale.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

struct Size {
    std::vector<int32_t> offsets;
    int64_t rows, cols;
};
const std::vector<Size> sizes = {{{0, 1}, 1, 1}, {{0, 2, 2, 5}, 7, 17}, {{0, 0, 127, 130}, 130, 3}, {{0, 3, 9}, 9, 700}, {{0, 40, 40, 57, 58}, 60, 264}};

Tensor offsets_of(Context& context, const Size& size) {
    const Tensor t = make(context, DType::i32, {static_cast<int64_t>(size.offsets.size())});
    for (size_t i = 0; i < size.offsets.size(); ++i) set(t, 0, static_cast<int64_t>(i), size.offsets[i]);
    return t;
}
int64_t expert_of(const Size& size, int64_t row) {
    int64_t e = 0;
    while (row >= size.offsets[static_cast<size_t>(e) + 1]) ++e;
    return e;
}

}  // namespace

TEST_SUITE("ops/expert_scale") {
    TEST_CASE("equals the formula; rows beyond the last expert's are not touched") {
        for (const Size& size : sizes) {
            for (const DType type : float_types) {
                TestContext context;
                const int64_t experts = static_cast<int64_t>(size.offsets.size()) - 1, used = size.offsets.back();
                const Tensor in = random(context, type, {size.rows, size.cols}, 1), scale = random(context, type, {experts, size.cols}, 2), out = make(context, type, {size.rows, size.cols});
                const Tensor first(scale.data, type, {size.cols});
                ops::expert_scale(context, {in, first, size.cols, offsets_of(context, size), out});
                const Tensor expected = make(context, DType::f64, {size.rows, size.cols});
                for (int64_t r = 0; r < used; ++r)
                    for (int64_t c = 0; c < size.cols; ++c) set(expected, r, c, get(in, r, c) * get(scale, expert_of(size, r), c));
                compare("expert scale", out.slice_rows(0, used), expected.slice_rows(0, used), type, Kind::elementwise);
                for (int64_t r = used; r < size.rows; ++r) CHECK(get(out, r, 0) != get(out, r, 0));

                // Backward: d_in may be d_out; d_scale adds.
                const Tensor d_out = random(context, type, {size.rows, size.cols}, 3), d_scale = make(context, accumulate_type(type), {experts, size.cols});
                const Tensor expected_scale = make(context, DType::f64, {experts, size.cols}), expected_in = make(context, DType::f64, {size.rows, size.cols});
                for (int64_t e = 0; e < experts; ++e)
                    for (int64_t c = 0; c < size.cols; ++c) set(d_scale, e, c, 1), set(expected_scale, e, c, 1);
                for (int64_t r = 0; r < used; ++r)
                    for (int64_t c = 0; c < size.cols; ++c) {
                        const int64_t e = expert_of(size, r);
                        set(expected_scale, e, c, get(expected_scale, e, c) + get(d_out, r, c) * get(in, r, c));
                        set(expected_in, r, c, get(d_out, r, c) * get(scale, e, c));
                    }
                const Tensor first_gradient(d_scale.data, d_scale.dtype, {size.cols});
                ops::expert_scale_backward(context, {in, first, size.cols, offsets_of(context, size), d_out, d_out, first_gradient});
                compare("expert scale d_in", d_out.slice_rows(0, used), expected_in.slice_rows(0, used), type, Kind::elementwise);
                compare("expert scale d_scale", d_scale, expected_scale, accumulate_type(type), Kind::reduction);
            }
        }
    }

    TEST_CASE("gradients") {
        for (const Size& size : sizes) {
            TestContext context;
            const int64_t experts = static_cast<int64_t>(size.offsets.size()) - 1, used = size.offsets.back();
            const Tensor in = random(context, DType::f64, {size.rows, size.cols}, 1), scale = random(context, DType::f64, {experts, size.cols}, 2), offsets = offsets_of(context, size);
            const Tensor cotangent = random(context, DType::f64, {used, size.cols}, 4), out = make(context, DType::f64, {size.rows, size.cols});
            const Tensor d_in = context.zeros(DType::f64, {size.rows, size.cols}), d_scale = context.zeros(DType::f64, {experts, size.cols}), d_out = make(context, DType::f64, {size.rows, size.cols});
            for (int64_t r = 0; r < used; ++r)
                for (int64_t c = 0; c < size.cols; ++c) set(d_out, r, c, get(cotangent, r, c));
            const Tensor first(scale.data, DType::f64, {size.cols}), first_gradient(d_scale.data, DType::f64, {size.cols});
            ops::expert_scale_backward(context, {in, first, size.cols, offsets, d_out, d_in, first_gradient});
            const auto loss = [&] {
                ops::expert_scale(context, {in, first, size.cols, offsets, out});
                return dot(cotangent, out.slice_rows(0, used));
            };
            gradient_check("expert scale", loss, {{in, d_in}, {scale, d_scale}});
        }
    }

    TEST_CASE("bits do not depend on the number of threads") {
        TestContext context;
        const Size& size = sizes[2];
        const Tensor in = random(context, DType::f32, {size.rows, size.cols}, 1), scale = random(context, DType::f32, {3, size.cols}, 2), d_out = random(context, DType::f32, {size.rows, size.cols}, 3);
        std::vector<Tensor> results;
        for (const int count : {1, 3}) {
            const Threads threads(count);
            const Tensor d_in = context.zeros(DType::f32, {size.rows, size.cols}), d_scale = context.zeros(DType::f32, {3, size.cols});
            ops::expert_scale_backward(context, {in, Tensor(scale.data, DType::f32, {size.cols}), size.cols, offsets_of(context, size), d_out, d_in, Tensor(d_scale.data, DType::f32, {size.cols})});
            results.push_back(d_scale);
        }
        CHECK(same_bits(results[0], results[1]));
    }
}
