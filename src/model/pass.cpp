#include "model/pass.hpp"

#include "ops/elementwise.hpp"

namespace flanmoe {

Tensor Pass::narrow(const Tensor& saved) const {
    if (saved.dtype == type()) return saved;
    const Tensor copy = context.allocate(type(), saved.shape);
    ops::cast(context, saved, copy);
    return copy;
}

}  // namespace flanmoe
