#include "checkpoint/stored_type.hpp"

#include <array>
#include <bit>
#include <limits>
#include <type_traits>
#include <utility>

namespace flanmoe {

namespace {

struct TypeFacts {
    const char* name;
    int bits;
};

constexpr std::array<TypeFacts, 22> facts = {{{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
                                              {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
                                              {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
                                              {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};

struct Half {
    uint16_t bits;
    operator float() const {
        const uint32_t sign = uint32_t{bits & 0x8000u} << 16, exponent = (bits >> 10) & 31u, fraction = bits & 1023u;
        if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
        if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
        const float tiny = static_cast<float>(fraction) * 0x1p-24f;  // subnormal: exact
        return sign ? -tiny : tiny;
    }
};

template <class From, class To>
bool convert_as(const void* from, void* to, int64_t count) {
    const From* source = static_cast<const From*>(from);
    To* target = static_cast<To*>(to);
    if constexpr (!std::is_integral_v<To>) {
        using Wide = std::conditional_t<std::is_integral_v<From> || std::is_same_v<From, double>, From, float>;
        for (int64_t i = 0; i < count; ++i) {
            if constexpr (std::is_same_v<To, bf16>)
                target[i] = bf16(static_cast<float>(static_cast<Wide>(source[i])));
            else
                target[i] = static_cast<To>(static_cast<Wide>(source[i]));
        }
        return true;
    } else if constexpr (std::is_integral_v<From>) {
        bool fits = true;
        for (int64_t i = 0; i < count; ++i) {
            fits &= std::in_range<To>(source[i]);
            target[i] = static_cast<To>(source[i]);
        }
        return fits;
    } else {
        return false;
    }
}

template <class From>
bool convert_from(const void* from, void* to, DType to_type, int64_t count) {
    switch (to_type) {
        case DType::f32: return convert_as<From, float>(from, to, count);
        case DType::bf16: return convert_as<From, bf16>(from, to, count);
        case DType::f64: return convert_as<From, double>(from, to, count);
        case DType::i32: return convert_as<From, int32_t>(from, to, count);
        case DType::i64: return convert_as<From, int64_t>(from, to, count);
        case DType::u8: return convert_as<From, uint8_t>(from, to, count);
    }
    return false;
}

}  // namespace

const char* name_of(StoredType type) { return facts[static_cast<size_t>(type)].name; }

int bits_of(StoredType type) { return facts[static_cast<size_t>(type)].bits; }

std::optional<StoredType> stored_type(std::string_view name) {
    for (size_t i = 0; i < facts.size(); ++i)
        if (name == facts[i].name) return static_cast<StoredType>(i);
    return {};
}

StoredType stored_type(DType type) {
    switch (type) {
        case DType::f32: return StoredType::f32;
        case DType::bf16: return StoredType::bf16;
        case DType::f64: return StoredType::f64;
        case DType::i32: return StoredType::i32;
        case DType::i64: return StoredType::i64;
        case DType::u8: return StoredType::u8;
    }
    return StoredType::f32;
}

std::optional<DType> natural_type(StoredType type) {
    switch (type) {
        case StoredType::boolean:
        case StoredType::u8: return DType::u8;
        case StoredType::i8:
        case StoredType::i16:
        case StoredType::u16:
        case StoredType::i32: return DType::i32;
        case StoredType::u32:
        case StoredType::i64:
        case StoredType::u64: return DType::i64;
        case StoredType::bf16: return DType::bf16;
        case StoredType::f16:
        case StoredType::f32: return DType::f32;
        case StoredType::f64: return DType::f64;
        default: return {};
    }
}

bool convert_values(const void* from, StoredType from_type, void* to, DType to_type, int64_t count) {
    switch (from_type) {
        case StoredType::boolean:
        case StoredType::u8: return convert_from<uint8_t>(from, to, to_type, count);
        case StoredType::i8: return convert_from<int8_t>(from, to, to_type, count);
        case StoredType::i16: return convert_from<int16_t>(from, to, to_type, count);
        case StoredType::u16: return convert_from<uint16_t>(from, to, to_type, count);
        case StoredType::f16: return convert_from<Half>(from, to, to_type, count);
        case StoredType::bf16: return convert_from<bf16>(from, to, to_type, count);
        case StoredType::i32: return convert_from<int32_t>(from, to, to_type, count);
        case StoredType::u32: return convert_from<uint32_t>(from, to, to_type, count);
        case StoredType::f32: return convert_from<float>(from, to, to_type, count);
        case StoredType::f64: return convert_from<double>(from, to, to_type, count);
        case StoredType::i64: return convert_from<int64_t>(from, to, to_type, count);
        case StoredType::u64: return convert_from<uint64_t>(from, to, to_type, count);
        default: return false;
    }
}

}  // namespace flanmoe
