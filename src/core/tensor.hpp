// Element types and tensor views.
//
// A Tensor is a view: pointer, element type, shape and the distance between rows. It owns nothing; memory comes from an Arena (activations)
// or a ParameterStore (weights). Row-major; the last dimension is contiguous; consecutive rows lie `ld` elements apart, so that a slice of
// columns (queries inside a fused query-key-value product) is a view too. All leading dimensions are rows: a [B, S, D] tensor has B*S rows.
#pragma once

#include "core/error.hpp"

#include <array>
#include <bit>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

namespace flanmoe {

/// bfloat16 storage; arithmetic happens in float. Rounds to nearest even; NaN stays NaN.
struct bf16 {
    uint16_t bits = 0;
    constexpr bf16() = default;
    constexpr explicit bf16(float value) {
        const uint32_t u = std::bit_cast<uint32_t>(value);
        const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
        bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
    }
    constexpr explicit bf16(double value) : bf16(static_cast<float>(value)) {}
    constexpr operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};
static_assert(sizeof(bf16) == 2);

enum class DType : uint8_t { f32, bf16, f64, i32, i64, u8 };

constexpr int64_t size_of(DType type) {
    switch (type) {
        case DType::bf16: return 2;
        case DType::f64:
        case DType::i64: return 8;
        case DType::u8: return 1;
        default: return 4;
    }
}
const char* name_of(DType type);

template <class T>
constexpr DType dtype_of = std::is_same_v<T, float>     ? DType::f32
                           : std::is_same_v<T, bf16>    ? DType::bf16
                           : std::is_same_v<T, double>  ? DType::f64
                           : std::is_same_v<T, int32_t> ? DType::i32
                           : std::is_same_v<T, int64_t> ? DType::i64
                                                        : DType::u8;

/// The type in which values of a storage type are summed, normalised and kept as master copy: double for double, else float.
template <class T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;
constexpr DType accumulate_type(DType type) { return type == DType::f64 ? DType::f64 : DType::f32; }

struct Shape {
    static constexpr int max_rank = 4;
    std::array<int64_t, max_rank> sizes{};
    int rank = 0;

    Shape() = default;
    Shape(std::initializer_list<int64_t> dims) {
        require(static_cast<int>(dims.size()) <= max_rank, "at most four dimensions");
        for (int64_t d : dims) sizes[rank++] = d;
    }
    int64_t operator[](int i) const { return sizes[i < 0 ? rank + i : i]; }
    int64_t elements() const {
        int64_t n = 1;
        for (int i = 0; i < rank; ++i) n *= sizes[i];
        return n;
    }
    bool operator==(const Shape& other) const {
        if (rank != other.rank) return false;
        for (int i = 0; i < rank; ++i)
            if (sizes[i] != other.sizes[i]) return false;
        return true;
    }
    std::string text() const;  ///< "[8, 512]"
};

struct Tensor {
    void* data = nullptr;
    DType dtype = DType::f32;
    Shape shape;
    int64_t ld = 0;  ///< elements from one row to the next; >= shape[-1]

    Tensor() = default;
    Tensor(void* data, DType dtype, Shape shape, int64_t row_stride = 0)
        : data(data), dtype(dtype), shape(shape), ld(row_stride ? row_stride : (shape.rank ? shape[-1] : 1)) {}

    explicit operator bool() const { return data != nullptr; }  ///< optional operands are empty tensors
    int64_t elements() const { return shape.elements(); }
    int64_t cols() const { return shape.rank ? shape[-1] : 1; }
    int64_t rows() const { return cols() ? elements() / cols() : 0; }
    int64_t bytes() const { return elements() * size_of(dtype); }
    bool compact() const { return ld == cols() || rows() <= 1; }

    template <class T>
    T* as() const {
        require(dtype == dtype_of<T>, "a tensor of the element type that is asked for");
        return static_cast<T*>(data);
    }
    /// Same elements, other shape; compact tensors only.
    Tensor view(Shape other) const {
        require(compact() && other.elements() == elements(), "a compact tensor and as many elements in its view");
        return Tensor(data, dtype, other);
    }
    /// Columns [first, first + count) of every row.
    Tensor columns(int64_t first, int64_t count) const {
        Tensor t = *this;
        t.data = static_cast<char*>(data) + first * size_of(dtype);
        t.shape.sizes[t.shape.rank - 1] = count;
        return t;
    }
    /// Rows [first, first + count) as a two-dimensional view.
    Tensor slice_rows(int64_t first, int64_t count) const {
        return Tensor(static_cast<char*>(data) + first * ld * size_of(dtype), dtype, {count, cols()}, ld);
    }
};

}  // namespace flanmoe
