// Tools of the operations' tests: tensors with guarded padding, reproducible contents, comparison against one table of tolerances, gradient checks.
//
// A test of an operation runs one table of cases three ways: (1) in double against a naive literal implementation written in the test; (2) in f32 and
// bf16 against the double result on the same inputs (fill() gives numbers that bf16 holds exactly, so all types see the same ones); (3) gradient_check
// in double. compare() keeps the largest share of its allowance that each comparison used; the shares are printed when the program ends.
#pragma once

#include "core/context.hpp"

#include <omp.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

namespace flanmoe::test {

/// A context on the device that the test program was started for (`--device cuda`; default cpu), in memory that the host reaches too. Double is the
/// oracle and runs on the CPU whatever the device (ops/run.hpp).
struct TestContext : Context {
    TestContext();
};

inline constexpr DType float_types[] = {DType::f32, DType::bf16, DType::f64};

/// A tensor in the context's arena, every element NaN (integers: -1), rows `padding` elements apart from the end of one to the next.
Tensor make(Context& context, DType dtype, Shape shape, int64_t padding = 0);
/// True if nothing was written between the rows of a tensor that make() gave.
bool padding_untouched(const Tensor& tensor);

/// Random numbers of either sign, magnitude in [1/16, 1] * scale: away from the kink of ReLU at 0; exact in bf16 if scale is a power of two.
void fill(const Tensor& tensor, uint64_t seed, double scale = 1);
/// Random integers in [0, bound), i32, i64 or u8.
void fill_integers(const Tensor& tensor, uint64_t seed, int64_t bound);
/// make() and fill() at once.
Tensor random(Context& context, DType dtype, Shape shape, uint64_t seed, double scale = 1, int64_t padding = 0);

double get(const Tensor& tensor, int64_t row, int64_t col);  ///< any element type
void set(const Tensor& tensor, int64_t row, int64_t col, double value);
/// A compact copy in another type.
Tensor convert(Context& context, const Tensor& tensor, DType dtype);
double dot(const Tensor& a, const Tensor& b);  ///< in double, any types; a random `b` makes a scalar loss of an output
bool same_bits(const Tensor& a, const Tensor& b);

/// Kind of an operation, for its tolerance.
enum class Kind {
    copy,         ///< values move, or are rounded once
    elementwise,  ///< a few roundings an element
    reduction,    ///< sums of many elements: norms, losses, statistics
    matmul,       ///< one matrix product
    chain,        ///< products of rounded intermediate results: attention, backward of several steps
};
double tolerance(DType dtype, Kind kind);

/// Checks got against expected (double, same rows and columns): |got - expected| <= tolerance(dtype, kind) * max(|expected|, rms of expected).
/// `dtype` is the type the operation ran in; `what` names the comparison in the printed shares ("matmul"); details of the case go in doctest's CAPTURE.
void compare(const std::string& what, const Tensor& got, const Tensor& expected, DType dtype, Kind kind);

struct Checked {
    Tensor value;     ///< f64, an input of the loss; changed during the check and put back
    Tensor gradient;  ///< f64, what the operation says its gradient is
};
/// Compares, for each pair, the directional derivative of `loss` along a random direction with the gradient's: 4-point central differences of step
/// `step`, relative error at most 1e-7. `loss` recomputes everything from the values; allocate inside an Arena::Scope there.
void gradient_check(const std::string& what, const std::function<double()>& loss, std::initializer_list<Checked> pairs, uint64_t seed = 1,
                    double step = 1e-3);

/// Runs with so many threads until it ends.
class Threads {
public:
    explicit Threads(int count) : before_(omp_get_max_threads()) { omp_set_num_threads(count); }
    Threads(const Threads&) = delete;
    ~Threads() { omp_set_num_threads(before_); }

private:
    int before_;
};

}  // namespace flanmoe::test
