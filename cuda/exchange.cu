// Slots of rows that other ranks sent: one block adds the counts up, then a block a source and expert numbers its rows; rows are copied a warp each, in units
// of 16, 4 or 1 bytes as their width allows.
//
// The sums are over sources x experts (at most some thousands): one thread takes them one after the other, which costs microseconds beside the exchange
// itself. Not yet measured on hardware.
#include "ops/exchange.hpp"

#include "launch.hpp"
#include "row_piece.cuh"

namespace flanmoe::cuda {

namespace {

constexpr int threads = 256;

__global__ void count_kernel(const int32_t* offsets, int64_t experts, int32_t* counts) {
    const int64_t e = int64_t{blockIdx.x} * threads + threadIdx.x;
    if (e < experts) counts[e] = offsets[e + 1] - offsets[e];
}

struct SlotArgs {
    const int32_t* counts;
    int64_t sources, experts, capacity;
    int32_t *offsets, *slots;
    int32_t *first_slots, *first_rows;  // [sources, experts]
};

__global__ void begin_kernel(SlotArgs args) {
    if (threadIdx.x == 0) {
        int32_t before = 0;
        for (int64_t i = 0; i < args.sources * args.experts; ++i) {
            args.first_slots[i] = args.capacity ? static_cast<int32_t>(i * args.capacity) : before;
            before += args.counts[i];
        }
    }
    if (threadIdx.x == 32) {
        int32_t row = 0;
        args.offsets[0] = 0;
        for (int64_t e = 0; e < args.experts; ++e) {
            for (int64_t s = 0; s < args.sources; ++s) args.first_rows[s * args.experts + e] = row, row += args.counts[s * args.experts + e];
            args.offsets[e + 1] = row;
        }
    }
}

__global__ void number_kernel(SlotArgs args) {
    const int32_t count = args.counts[blockIdx.x], slot = args.first_slots[blockIdx.x], row = args.first_rows[blockIdx.x];
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < count; i += threads) args.slots[row + i] = slot + i;
}

template <class Unit, bool gather>
__global__ void __launch_bounds__(32 * row_warps) move_kernel(Unit* rows, Unit* in_slots, const int32_t* slots, const int32_t* offsets, int64_t experts, int64_t width) {
    const int64_t r = own_row();
    if (r < offsets[0] || r >= offsets[experts]) return;
    Unit* const row = rows + r * width;
    Unit* const slot = in_slots + slots[r] * width;
    for (int64_t c = lane(); c < width; c += 32) (gather ? row : slot)[c] = (gather ? slot : row)[c];
}

template <bool gather>
void move(Context& context, const char* name, const ops::MoveSlotsArgs& args) {
    const int64_t bytes = args.rows.elements() / args.slots.elements() * size_of(args.rows.dtype);
    const auto run = [&]<class Unit>(Unit) {
        launch(context, name, move_kernel<Unit, gather>, blocks_for(args.slots.elements(), row_warps), 32 * row_warps, 0, static_cast<Unit*>(args.rows.data),
               static_cast<Unit*>(args.in_slots.data), args.slots.as<int32_t>(), static_cast<const int32_t*>(args.offsets.as<int32_t>()), args.offsets.elements() - 1,
               bytes / static_cast<int64_t>(sizeof(Unit)));
    };
    if (bytes % 16 == 0 && is_aligned(args.rows.data) && is_aligned(args.in_slots.data)) run(uint4{});
    else if (bytes % 4 == 0) run(uint32_t{});
    else run(uint8_t{});
}

}  // namespace

void count_rows(Context& context, const ops::CountRowsArgs& args) {
    const int64_t experts = args.counts.elements();
    launch(context, "count rows", count_kernel, blocks_for(experts, threads), threads, 0, args.offsets.as<int32_t>(), experts, args.counts.as<int32_t>());
}

void expert_slots(Context& context, const ops::ExpertSlotsArgs& args) {
    Arena::Scope scope(context.arena);
    const Tensor begins = context.allocate(DType::i32, {2, args.counts.elements()});
    const SlotArgs slots{args.counts.as<int32_t>(), args.counts.shape[0],   args.counts.cols(), args.capacity, args.offsets.as<int32_t>(), args.slots.as<int32_t>(),
                         begins.as<int32_t>(),      begins.as<int32_t>() + args.counts.elements()};
    launch(context, "expert slots", begin_kernel, 1, 64, 0, slots);
    launch(context, "number slots", number_kernel, static_cast<unsigned>(args.counts.elements()), threads, 0, slots);
}

void from_slots(Context& context, const ops::MoveSlotsArgs& args) { move<true>(context, "from slots", args); }
void to_slots(Context& context, const ops::MoveSlotsArgs& args) { move<false>(context, "to slots", args); }

}  // namespace flanmoe::cuda
