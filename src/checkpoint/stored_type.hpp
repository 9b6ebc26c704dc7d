// Element types of safetensors files, in the order of the format's reference implementation, and conversion of stored values to ours.
//
// A file may hold types that we do not compute in (f16, u16, fp8, ...): all of them can be listed, copied and hashed; those of `convertible` can be read
// as numbers. Sub-byte types exist in the enumeration only so that headers that use them are judged by the right rules.
#pragma once

#include "core/tensor.hpp"

#include <cstdint>
#include <optional>
#include <string_view>

namespace flanmoe {

/// Ascending order of the reference implementation (safetensors/src/tensor.rs): files are laid out by descending type, then by name.
enum class StoredType : uint8_t {
    boolean, f4, f6_e2m3, f6_e3m2, u8, i8, f8_e5m2, f8_e4m3, f8_e8m0, f8_e4m3fnuz, f8_e5m2fnuz,
    i16, u16, f16, bf16, i32, u32, f32, c64, f64, i64, u64,
};

const char* name_of(StoredType type);                       ///< as in a header: "BF16"
std::optional<StoredType> stored_type(std::string_view name);
int bits_of(StoredType type);
StoredType stored_type(DType type);
/// The type in which values of a stored type are kept when nothing else is asked for: f16 as f32, small integers as i32, unsigned as i64.
/// Empty for types that cannot be read as numbers (complex, fp8 and smaller).
std::optional<DType> natural_type(StoredType type);

/// Converts `count` consecutive values. f64 to f32 and f32 to bf16 round to nearest even; integers to floats likewise; floats to integers truncate.
/// Both types must be convertible (natural_type).
void convert_values(const void* from, StoredType from_type, void* to, DType to_type, int64_t count);
/// The other direction: our values as a stored type out of f32, bf16, f16, f64, i32, i64, u8.
void convert_values(const void* from, DType from_type, void* to, StoredType to_type, int64_t count);

}  // namespace flanmoe
