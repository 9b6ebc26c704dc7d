// Slots of rows that other ranks sent, on the CPU: copies of whole rows, bound by memory.
#include "ops/exchange.hpp"

#include "core/parallel.hpp"

#include <cstring>
#include <vector>

namespace flanmoe::cpu {

namespace {

template <class Copy>
void for_rows(const ops::MoveSlotsArgs& args, Copy&& copy) {
    const int64_t width = args.rows.elements() / args.slots.elements() * size_of(args.rows.dtype);
    const int32_t* slots = args.slots.as<int32_t>();
    const int64_t first = args.offsets.as<int32_t>()[0], end_of_rows = args.offsets.as<int32_t>()[args.offsets.elements() - 1];
    require(end_of_rows <= args.slots.elements(), "room for all rows");
    char *rows = static_cast<char*>(args.rows.data), *in_slots = static_cast<char*>(args.in_slots.data);
    parallel_for(end_of_rows - first, std::max<int64_t>(1, (int64_t{64} << 10) / std::max<int64_t>(1, width)), [&](int64_t begin, int64_t end) {
        for (int64_t r = first + begin; r < first + end; ++r) copy(rows + r * width, in_slots + slots[r] * width, static_cast<size_t>(width));
    });
}

}  // namespace

void count_rows(Context&, const ops::CountRowsArgs& args) {
    const int32_t* offsets = args.offsets.as<int32_t>();
    for (int64_t e = 0; e < args.counts.elements(); ++e) args.counts.as<int32_t>()[e] = offsets[e + 1] - offsets[e];
}

void expert_slots(Context&, const ops::ExpertSlotsArgs& args) {
    const int64_t sources = args.counts.shape[0], experts = args.counts.cols(), room = args.slots.elements();
    const int32_t* counts = args.counts.as<int32_t>();
    std::vector<int64_t> begins(static_cast<size_t>(sources * experts));
    int64_t before = 0;
    for (size_t i = 0; i < begins.size(); ++i) {
        begins[i] = args.capacity ? static_cast<int64_t>(i) * args.capacity : before;
        before += counts[i];
    }
    require(before <= room, "room for all rows");
    int32_t *offsets = args.offsets.as<int32_t>(), *slots = args.slots.as<int32_t>();
    int64_t row = 0;
    offsets[0] = 0;
    for (int64_t e = 0; e < experts; ++e) {
        for (int64_t s = 0; s < sources; ++s)
            for (int32_t i = 0; i < counts[s * experts + e]; ++i) slots[row++] = static_cast<int32_t>(begins[static_cast<size_t>(s * experts + e)]) + i;
        offsets[e + 1] = static_cast<int32_t>(row);
    }
}

void from_slots(Context&, const ops::MoveSlotsArgs& args) {
    for_rows(args, [](char* row, const char* slot, size_t bytes) { std::memcpy(row, slot, bytes); });
}
void to_slots(Context&, const ops::MoveSlotsArgs& args) {
    for_rows(args, [](const char* row, char* slot, size_t bytes) { std::memcpy(slot, row, bytes); });
}

}  // namespace flanmoe::cpu
