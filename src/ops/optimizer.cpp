// Argument checks of optimizer.hpp.
#include "ops/optimizer.hpp"

#include "ops/run.hpp"

#include <algorithm>
#include <cmath>

namespace flanmoe::cpu {
void adafactor(Context& context, std::span<const ops::AdafactorTensor> tensors, const ops::AdafactorSettings& settings);
void adamw(Context& context, std::span<const ops::AdamWTensor> tensors, const ops::AdamWSettings& settings);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void adafactor(Context& context, std::span<const ops::AdafactorTensor> tensors, const ops::AdafactorSettings& settings);
void adamw(Context& context, std::span<const ops::AdamWTensor> tensors, const ops::AdamWSettings& settings);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {

void check_pair(const Tensor& parameter, const Tensor& gradient, DType type) {
    require(type == DType::f32 || type == DType::f64, "parameters of f32 or f64");
    require(is_vector(parameter, type, parameter.elements()) && is_vector(gradient, type, parameter.elements()), "compact parameters and gradients of one type");
}

template <class Settings>
void check_scale(const Settings& settings) {
    require(std::isfinite(settings.gradient_scale), "a finite factor of the gradients");
    require(settings.squared_norm ? is_vector(settings.squared_norm, DType::f64, 1) : settings.clip == 0, "one squared norm in double, or no clipping");
}

}  // namespace

bool adafactor_factors(const Shape& shape, int64_t minimum_dimension) {
    return shape.rank == 2 && std::min(shape[0], shape[1]) >= minimum_dimension;
}

void adafactor(Context& context, std::span<const AdafactorTensor> tensors, const AdafactorSettings& settings) {
    if (tensors.empty()) return;
    const DType type = tensors[0].parameter.dtype;
    for (const AdafactorTensor& t : tensors) {
        check_pair(t.parameter, t.gradient, type);
        const Shape& shape = t.parameter.shape;
        if (t.v) {
            require(!t.v_row && !t.v_col && is_vector(t.v, type, t.parameter.elements()), "an unfactored state like the parameter");
        } else {
            require(shape.rank == 2 && shape.elements() > 0, "a matrix, since its state is factored");
            const bool rows_are_less = rows_are_smaller(t);
            require(is_vector(t.v_row, type, shape[rows_are_less ? 0 : 1]) && is_vector(t.v_col, type, shape[rows_are_less ? 1 : 0]),
                    "factors as long as the smaller (v_row) and the larger dimension (v_col)");
        }
    }
    for (const AdafactorTensor& t : tensors)
        require(t.shared == -1 || (settings.add_parts && t.shared < t.parameter.shape.rank && t.whole >= t.parameter.shape[t.shared]), "shared tensors with their whole size, and their sum");
    check_scale(settings);
    dispatch(context, type, [&] { cpu::adafactor(context, tensors, settings); }, [&] { cuda::adafactor(context, tensors, settings); });
}

void adamw(Context& context, std::span<const AdamWTensor> tensors, const AdamWSettings& settings) {
    if (tensors.empty()) return;
    const DType type = tensors[0].parameter.dtype;
    for (const AdamWTensor& t : tensors) {
        check_pair(t.parameter, t.gradient, type);
        require(is_vector(t.m, type, t.parameter.elements()) && is_vector(t.v, type, t.parameter.elements()), "moments like the parameter");
    }
    check_scale(settings);
    dispatch(context, type, [&] { cpu::adamw(context, tensors, settings); }, [&] { cuda::adamw(context, tensors, settings); });
}

}  // namespace flanmoe::ops
