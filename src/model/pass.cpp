#include "model/pass.hpp"

#include "ops/elementwise.hpp"

namespace flanmoe {

Tensor Reused::take(Context& context, Kind kind, DType type, Shape shape) {
    const int64_t bytes = shape.elements() * size_of(type);
    if (!slots_[kind] || slots_[kind].bytes() < bytes) slots_[kind] = context.allocate(DType::u8, {bytes});
    return Tensor(slots_[kind].data, type, shape);
}

Tensor Pass::narrow(const Tensor& saved) const {
    if (saved.dtype == type()) return saved;
    const Tensor copy = context.allocate(type(), saved.shape);
    ops::cast(context, saved, copy);
    return copy;
}

}  // namespace flanmoe
