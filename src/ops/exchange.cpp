// Argument checks of exchange.hpp.
#include "ops/exchange.hpp"

#include "ops/run.hpp"

namespace flanmoe::cpu {
void count_rows(Context&, const ops::CountRowsArgs& args);
void expert_slots(Context&, const ops::ExpertSlotsArgs& args);
void from_slots(Context&, const ops::MoveSlotsArgs& args);
void to_slots(Context&, const ops::MoveSlotsArgs& args);
}  // namespace flanmoe::cpu
namespace flanmoe::cuda {
void count_rows(Context& context, const ops::CountRowsArgs& args);
void expert_slots(Context& context, const ops::ExpertSlotsArgs& args);
void from_slots(Context& context, const ops::MoveSlotsArgs& args);
void to_slots(Context& context, const ops::MoveSlotsArgs& args);
}  // namespace flanmoe::cuda

namespace flanmoe::ops {

namespace {

void check(const MoveSlotsArgs& args) {
    require(args.rows.dtype == args.in_slots.dtype && args.rows.compact() && args.in_slots.compact() && args.rows.elements() / args.slots.elements() * args.in_slots.shape[0] ==
                args.in_slots.elements() && args.rows.shape[0] == args.slots.elements(),
            "compact rows and slots of one type and width, a slot number a row");
    require(is_vector(args.slots, DType::i32, args.slots.elements()) && args.offsets.dtype == DType::i32 && args.offsets.elements() >= 2, "slots i32 [R], offsets i32 [E + 1]");
}

}  // namespace

void count_rows(Context& context, const CountRowsArgs& args) {
    require(is_vector(args.offsets, DType::i32, args.counts.elements() + 1) && is_vector(args.counts, DType::i32, args.counts.elements()), "offsets i32 [E + 1] and counts i32 [E]");
    dispatch(context, DType::i32, [&] { cpu::count_rows(context, args); }, [&] { cuda::count_rows(context, args); });
}

void expert_slots(Context& context, const ExpertSlotsArgs& args) {
    require(args.counts.shape.rank == 2 && is_vector(args.counts, DType::i32, args.counts.elements()) && args.capacity >= 0, "counts i32 [sources, experts]");
    require(is_vector(args.offsets, DType::i32, args.counts.cols() + 1) && is_vector(args.slots, DType::i32, args.slots.elements()), "offsets i32 [E + 1] and slots i32 [R]");
    dispatch(context, DType::i32, [&] { cpu::expert_slots(context, args); }, [&] { cuda::expert_slots(context, args); });
}

void from_slots(Context& context, const MoveSlotsArgs& args) {
    check(args);
    dispatch(context, DType::i32, [&] { cpu::from_slots(context, args); }, [&] { cuda::from_slots(context, args); });
}

void to_slots(Context& context, const MoveSlotsArgs& args) {
    check(args);
    dispatch(context, DType::i32, [&] { cpu::to_slots(context, args); }, [&] { cuda::to_slots(context, args); });
}

}  // namespace flanmoe::ops
