// What every operation's .cpp needs between its arguments and its implementation: the choice of device, the choice of element type, argument checks.
#pragma once

#include "core/context.hpp"

namespace flanmoe::ops {

// Defined where the CUDA implementations are linked, for the files of this folder only.
#ifdef FLANMOE_CUDA
constexpr bool with_cuda = true;
#else
constexpr bool with_cuda = false;
#endif

[[noreturn]] inline void refuse_cuda() { fail(Exit::hardware, "this program was built without CUDA; rebuild it where nvcc is found, or use --device cpu"); }

/// Runs the implementation of the context's device. Double is the oracle and has no CUDA implementation: it always runs on the CPU (in tests, whose memory
/// both reach; programs refuse the combination).
template <class Cpu, class Cuda>
void dispatch(const Context& context, DType type, Cpu&& on_cpu, Cuda&& on_cuda) {
    if (context.device == Device::cpu || type == DType::f64) return on_cpu();
    if constexpr (with_cuda) {
        on_cuda();
    } else {
        refuse_cuda();
    }
}
/// One of the types that operations compute on.
constexpr bool is_float(DType type) { return type == DType::f32 || type == DType::bf16 || type == DType::f64; }

/// Calls body.template operator()<T>() with T = float, bf16 or double: with_type(dtype, [&]<class T>() { ... }).
template <class Body>
decltype(auto) with_type(DType type, Body&& body) {
    switch (type) {
        case DType::bf16: return body.template operator()<bf16>();
        case DType::f64: return body.template operator()<double>();
        default: require(type == DType::f32, "an element type of f32, bf16 or f64"); return body.template operator()<float>();
    }
}

/// `tensor` has this type and so many rows and columns.
inline bool is_matrix(const Tensor& tensor, DType type, int64_t rows, int64_t cols) {
    return tensor.data && tensor.dtype == type && tensor.rows() == rows && tensor.cols() == cols && tensor.ld >= cols;
}
/// `tensor` is compact, has this type and so many elements, whatever its shape.
inline bool is_vector(const Tensor& tensor, DType type, int64_t elements) {
    return tensor.data && tensor.dtype == type && tensor.elements() == elements && tensor.compact();
}

}  // namespace flanmoe::ops
