#include "core/tensor.hpp"

namespace flanmoe {

const char* name_of(DType type) {
    switch (type) {
        case DType::f32: return "f32";
        case DType::bf16: return "bf16";
        case DType::f64: return "f64";
        case DType::i32: return "i32";
        case DType::i64: return "i64";
        case DType::u8: return "u8";
    }
    return "?";
}

std::string Shape::text() const {
    std::string s = "[";
    for (int i = 0; i < rank; ++i) s += (i ? ", " : "") + std::to_string(sizes[i]);
    return s + "]";
}

}  // namespace flanmoe
