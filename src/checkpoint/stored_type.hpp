// Element types of safetensors files, in the order of the format's reference implementation, and conversion of stored values to ours.
//
// A file may hold types that we do not compute in (f16, u16, fp8, ...): all of them can be listed, copied and hashed; those with a natural_type can be
// read as numbers. Sub-byte types exist in the enumeration only so that headers that use them are judged by the right rules.
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
/// The type in which values of a stored type are kept when nothing else is asked for: f16 as f32, booleans as u8, i8 to u16 as i32,
/// u32 and u64 as i64.
/// Empty for types that cannot be read as numbers (complex, fp8 and smaller).
std::optional<DType> natural_type(StoredType type);

/// Converts `count` consecutive values. Floats round to nearest even (f64 to bf16 by way of f32), integers to floats likewise. Integer targets take
/// integer sources only. False if a value does not fit its target, or for a pair that is not converted; `to` is then unspecified.
[[nodiscard]] bool convert_values(const void* from, StoredType from_type, void* to, DType to_type, int64_t count);

}  // namespace flanmoe
