#include "ops/rotary.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void rotary_table(Context&, const ops::RotaryTableArgs&);
void rotary(Context&, const ops::RotaryArgs&);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void rotary_table(Context&, const ops::RotaryTableArgs&);
void rotary(Context&, const ops::RotaryArgs&);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

void rotary_table(Context& context, const RotaryTableArgs& args) {
    const Tensor& table = args.table;
    require(table.data && (table.dtype == DType::f32 || table.dtype == DType::f64) && table.shape.rank == 2 && table.compact(), "a table [positions, K] of an accumulation type");
    require(table.cols() % 2 == 0 && args.theta > 0 && args.first >= 0, "heads of even width, a base above 0 and a first position of at least 0");
    dispatch(context, args.table.dtype, [&] { cpu::rotary_table(context, args); }, [&] { cuda::rotary_table(context, args); });
}

void rotary(Context& context, const RotaryArgs& args) {
    const Tensor& x = args.x;
    require(x.data && is_float(x.dtype) && x.shape.rank == 3 && x.ld >= x.cols(), "a floating x [batch, positions, heads * K]");
    require(args.heads > 0 && x.cols() % args.heads == 0 && x.cols() / args.heads % 2 == 0, "as many heads of equal, even width as are named");
    const int64_t size = x.cols() / args.heads;
    require(args.table.data && args.table.compact() && args.table.dtype == accumulate_type(x.dtype) && args.table.cols() == size && args.table.rows() >= x.shape[1],
            "a table [positions, K] of the accumulation type that covers every position");
    dispatch(context, args.x.dtype, [&] { cpu::rotary(context, args); }, [&] { cuda::rotary(context, args); });
}

}  // namespace flanmoe::ops
