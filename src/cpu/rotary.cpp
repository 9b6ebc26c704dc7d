// Rotary positions on the CPU: a pass over the rows, each head's halves together; memory-bound.
#include "ops/rotary.hpp"

#include "core/parallel.hpp"
#include "cpu/vector_math.hpp"
#include "ops/run.hpp"

#include <cmath>

namespace flanmoe::cpu {

namespace {

constexpr int64_t elements_per_thread = 8192;  // least work worth waking a thread for

template <class A>
void fill_table(const ops::RotaryTableArgs& args) {
    const int64_t size = args.table.cols(), half = size / 2;
    parallel_for(args.table.rows(), 64, [&](int64_t begin, int64_t end) {
        for (int64_t i = 0; i < half; ++i) {
            const double frequency = std::pow(args.theta, -2.0 * static_cast<double>(i) / static_cast<double>(size));
            for (int64_t p = begin; p < end; ++p) {
                const double angle = static_cast<double>(args.first + p) * frequency;
                A* row = row_of<A>(args.table, p);
                row[i] = static_cast<A>(std::cos(angle));
                row[half + i] = static_cast<A>(std::sin(angle));
            }
        }
    });
}

template <class T>
void turn_rows(const ops::RotaryArgs& args, int64_t begin, int64_t end) {
    using A = accumulate_t<T>;
    const int64_t size = args.x.cols() / args.heads, half = size / 2, positions = args.x.shape[1];
    const A sign = args.inverse ? A{-1} : A{1};
    for (int64_t r = begin; r < end; ++r) {
        const A *cosine = row_of<const A>(args.table, r % positions), *sine = cosine + half;
        for (int64_t h = 0; h < args.heads; ++h) {
            T *low = row_of<T>(args.x, r) + h * size, *high = low + half;
#pragma GCC ivdep
            for (int64_t i = 0; i < half; ++i) {
                const A a = static_cast<A>(low[i]), b = static_cast<A>(high[i]), s = sign * sine[i];
                low[i] = static_cast<T>(a * cosine[i] - b * s);
                high[i] = static_cast<T>(b * cosine[i] + a * s);
            }
        }
    }
}

}  // namespace

void rotary_table(Context&, const ops::RotaryTableArgs& args) {
    if (args.table.dtype == DType::f64) fill_table<double>(args);
    else fill_table<float>(args);
}

void rotary(Context&, const ops::RotaryArgs& args) {
    const int64_t grain = std::max<int64_t>(1, elements_per_thread / args.x.cols());
    ops::with_type(args.x.dtype, [&]<class T>() {
        parallel_for(args.x.rows(), grain, [&](int64_t begin, int64_t end) { turn_rows<T>(args, begin, end); });
    });
}

}  // namespace flanmoe::cpu
