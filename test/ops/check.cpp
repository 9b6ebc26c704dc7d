// See check.hpp.
#include "ops/check.hpp"

#include "core/random.hpp"
#include "device.hpp"
#include "ops/run.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>

namespace flanmoe::test {

namespace {

// The largest share of its allowance that each comparison used; printed when the program ends.
class Shares {
public:
    void add(const std::string& what, const char* type, double share) {
        double& largest = shares_[what][type];
        largest = std::max(largest, share);
    }
    ~Shares() {
        if (!shares_.empty()) std::printf("largest share of the allowance used:\n");
        for (const auto& [what, types] : shares_) {
            std::printf("  %-36s", what.c_str());
            for (const auto& [type, share] : types) std::printf(" %s %.2g ", type.c_str(), share);
            std::printf("\n");
        }
    }

private:
    std::map<std::string, std::map<std::string, double>> shares_;
};
Shares shares;

double random_sign_value(const RandomKey& key, uint64_t index, double scale) {
    const uint32_t bits = random_bits(key, index);
    const double magnitude = 0.0625 + 0.9375 * static_cast<double>(bits >> 8) * 0x1p-24;
    return static_cast<double>(static_cast<float>(bf16(magnitude))) * ((bits & 1) ? scale : -scale);
}

RandomKey key_of(uint64_t seed) { return {seed, 0, 0, Purpose::sampling}; }

template <class F>
void for_elements(const Tensor& tensor, F&& body) {
    const int64_t rows = tensor.rows(), cols = tensor.cols();
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) body(r, c);
}

bool is_blank(const Tensor& tensor, int64_t element) {
    if (!ops::is_float(tensor.dtype)) return get(tensor, 0, element) == (tensor.dtype == DType::u8 ? 255 : -1);
    return std::isnan(get(tensor, 0, element));
}

}  // namespace

TestContext::TestContext() : Context(test_device(), test_engine()) {}

Tensor make(Context& context, DType dtype, Shape shape, int64_t padding) {
    const int64_t cols = shape.rank ? shape[-1] : 1, rows = cols ? shape.elements() / cols : 0, ld = cols + padding;
    Tensor tensor(context.arena.allocate_bytes(rows * ld * size_of(dtype)), dtype, shape, ld);
    // All ones: NaN in every floating type, -1 in the signed integers.
    std::memset(tensor.data, 0xff, static_cast<size_t>(rows * ld * size_of(dtype)));
    return tensor;
}

bool padding_untouched(const Tensor& tensor) {
    for (int64_t r = 0; r < tensor.rows(); ++r)
        for (int64_t c = tensor.cols(); c < tensor.ld; ++c)
            if (!is_blank(tensor, r * tensor.ld + c)) return false;
    return true;
}

double get(const Tensor& tensor, int64_t row, int64_t col) {
    const int64_t i = row * tensor.ld + col;
    switch (tensor.dtype) {
        case DType::f32: return static_cast<const float*>(tensor.data)[i];
        case DType::bf16: return static_cast<float>(static_cast<const bf16*>(tensor.data)[i]);
        case DType::f64: return static_cast<const double*>(tensor.data)[i];
        case DType::i32: return static_cast<const int32_t*>(tensor.data)[i];
        case DType::i64: return static_cast<double>(static_cast<const int64_t*>(tensor.data)[i]);
        case DType::u8: return static_cast<const uint8_t*>(tensor.data)[i];
    }
    return 0;
}

void set(const Tensor& tensor, int64_t row, int64_t col, double value) {
    const int64_t i = row * tensor.ld + col;
    switch (tensor.dtype) {
        case DType::f32: static_cast<float*>(tensor.data)[i] = static_cast<float>(value); break;
        case DType::bf16: static_cast<bf16*>(tensor.data)[i] = bf16(value); break;
        case DType::f64: static_cast<double*>(tensor.data)[i] = value; break;
        case DType::i32: static_cast<int32_t*>(tensor.data)[i] = static_cast<int32_t>(value); break;
        case DType::i64: static_cast<int64_t*>(tensor.data)[i] = static_cast<int64_t>(value); break;
        case DType::u8: static_cast<uint8_t*>(tensor.data)[i] = static_cast<uint8_t>(value); break;
    }
}

void fill(const Tensor& tensor, uint64_t seed, double scale) {
    const RandomKey key = key_of(seed);
    for_elements(tensor, [&](int64_t r, int64_t c) { set(tensor, r, c, random_sign_value(key, static_cast<uint64_t>(r * tensor.cols() + c), scale)); });
}

void fill_integers(const Tensor& tensor, uint64_t seed, int64_t bound) {
    RandomStream stream(key_of(seed));
    for_elements(tensor, [&](int64_t r, int64_t c) { set(tensor, r, c, static_cast<double>(stream.below(static_cast<uint64_t>(bound)))); });
}

Tensor random(Context& context, DType dtype, Shape shape, uint64_t seed, double scale, int64_t padding) {
    Tensor tensor = make(context, dtype, shape, padding);
    fill(tensor, seed, scale);
    return tensor;
}

Tensor convert(Context& context, const Tensor& tensor, DType dtype) {
    Tensor copy = context.allocate(dtype, tensor.shape);
    for_elements(tensor, [&](int64_t r, int64_t c) { set(copy, r, c, get(tensor, r, c)); });
    return copy;
}

double dot(const Tensor& a, const Tensor& b) {
    double sum = 0;
    for_elements(a, [&](int64_t r, int64_t c) { sum += get(a, r, c) * get(b, r, c); });
    return sum;
}

bool same_bits(const Tensor& a, const Tensor& b) {
    if (a.dtype != b.dtype || a.rows() != b.rows() || a.cols() != b.cols()) return false;
    const int64_t size = size_of(a.dtype), width = static_cast<int64_t>(a.cols()) * size;
    for (int64_t r = 0; r < a.rows(); ++r)
        if (std::memcmp(static_cast<char*>(a.data) + r * a.ld * size, static_cast<char*>(b.data) + r * b.ld * size, static_cast<size_t>(width))) return false;
    return true;
}

double tolerance(DType dtype, Kind kind) {
    // Rows: Kind. f32: a few, then some tens of roundings of 2^-24 = 6e-8. bf16: storage rounds by 2^-9 = 0.002; a chain rounds its intermediate results
    // too. f64: as f32, against another order of the same sums.
    static constexpr double table[][3] = {
        // f32,  bf16,   f64
        {6.0e-8, 2.0e-3, 1.2e-16},  // copy
        {2.0e-6, 4.0e-3, 1.0e-14},  // elementwise
        {1.0e-5, 8.0e-3, 1.0e-13},  // reduction
        {1.0e-5, 8.0e-3, 1.0e-13},  // matmul
        {5.0e-5, 4.0e-2, 1.0e-12},  // chain
    };
    return table[static_cast<int>(kind)][dtype == DType::f32 ? 0 : dtype == DType::bf16 ? 1 : 2];
}

void compare(const std::string& what, const Tensor& got, const Tensor& expected, DType dtype, Kind kind) {
    CAPTURE(what);
    REQUIRE(got.rows() == expected.rows());
    REQUIRE(got.cols() == expected.cols());
    CHECK(padding_untouched(got));
    const double elements = static_cast<double>(std::max<int64_t>(expected.elements(), 1)), rms = std::sqrt(dot(expected, expected) / elements);
    double worst = 0;
    int64_t row = 0, col = 0;
    for_elements(expected, [&](int64_t r, int64_t c) {
        const double e = get(expected, r, c), error = std::abs(get(got, r, c) - e);
        const double allowance = tolerance(dtype, kind) * std::max(std::abs(e), rms) + std::numeric_limits<double>::min();
        const double share = std::isnan(error) ? std::numeric_limits<double>::infinity() : error / allowance;
        if (share > worst) worst = share, row = r, col = c;
    });
    shares.add(what, name_of(dtype), worst);
    INFO(name_of(dtype), ": worst at [", row, ", ", col, "]: got ", expected.elements() ? get(got, row, col) : 0, ", expected ",
         expected.elements() ? get(expected, row, col) : 0);
    CHECK(worst <= 1);
}

void gradient_check(const std::string& what, const std::function<double()>& loss, std::initializer_list<Checked> pairs, uint64_t seed, double step) {
    constexpr double allowed = 1e-7;
    const double at_rest = std::abs(loss());
    int64_t index = 0;
    for (const Checked& pair : pairs) {
        CAPTURE(what);
        CAPTURE(index);  // position in the list of pairs
        REQUIRE(pair.value.dtype == DType::f64);
        REQUIRE(pair.gradient.dtype == DType::f64);
        REQUIRE(pair.value.rows() == pair.gradient.rows());
        REQUIRE(pair.value.cols() == pair.gradient.cols());
        const RandomKey key = key_of(seed + 1000 * static_cast<uint64_t>(++index));
        const int64_t cols = pair.value.cols();
        std::vector<double> rest, direction;
        double analytic = 0, spread = 0;
        for_elements(pair.value, [&](int64_t r, int64_t c) {
            rest.push_back(get(pair.value, r, c));
            direction.push_back(random_sign_value(key, static_cast<uint64_t>(r * cols + c), 1));
            const double term = get(pair.gradient, r, c) * direction.back();
            analytic += term, spread += term * term;
        });
        const auto at = [&](double t) {
            for_elements(pair.value, [&](int64_t r, int64_t c) {
                const size_t i = static_cast<size_t>(r * cols + c);
                set(pair.value, r, c, rest[i] + t * direction[i]);
            });
            return loss();
        };
        const double numeric = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
        at(0);
        // The scale is what a derivative along a random direction typically is, so that a chance cancellation does not count as an error; a gradient
        // that is zero is judged against the loss, whose own rounding sets the noise of the differences.
        const double scale = std::max({std::abs(analytic), std::abs(numeric), std::sqrt(spread), 1e-4 * at_rest, 1e-8});
        const double error = std::abs(numeric - analytic) / scale;
        shares.add(what + " gradient", "f64", std::isnan(error) ? std::numeric_limits<double>::infinity() : error / allowed);
        INFO("numeric ", numeric, ", analytic ", analytic);
        CHECK(error <= allowed);
    }
}

}  // namespace flanmoe::test
