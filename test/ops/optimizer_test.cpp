// Adafactor and AdamW against literal double loops over several steps. Recorded cases of optax and PyTorch are run by cli/parity_test.cpp.
#include "ops/optimizer.hpp"

#include "ops/check.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

using namespace flanmoe;
using namespace flanmoe::test;

namespace {

using Vector = std::vector<double>;

double rms(const Vector& x) {
    double sum = 0;
    for (double v : x) sum += v * v;
    return std::sqrt(sum / static_cast<double>(x.size()));
}

/// One step of T5X's Adafactor on one tensor, literally; `v` is the elementwise state, row and col those of factored ones.
struct LiteralAdafactor {
    Shape shape;
    bool factored;
    Vector v, v_row, v_col;

    void step(Vector& parameter, const Vector& gradient, const ops::AdafactorSettings& s) {
        const int64_t rows = shape.rank == 2 ? shape[0] : 1, cols = shape[-1];
        const size_t n = gradient.size();
        Vector g(n), u(n);
        for (size_t i = 0; i < n; ++i) g[i] = gradient[i] * s.gradient_scale;
        if (!factored) {
            v.resize(n);
            for (size_t i = 0; i < n; ++i) v[i] = s.decay * v[i] + (1 - s.decay) * (g[i] * g[i] + s.epsilon), u[i] = g[i] / std::sqrt(v[i]);
        } else {
            const bool last_is_larger = rows <= cols;
            v_row.resize(static_cast<size_t>(std::min(rows, cols))), v_col.resize(static_cast<size_t>(std::max(rows, cols)));
            Vector mean_row(v_row.size()), mean_col(v_col.size());
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t c = 0; c < cols; ++c) {
                    const double q = g[static_cast<size_t>(r * cols + c)] * g[static_cast<size_t>(r * cols + c)] + s.epsilon;
                    mean_row[static_cast<size_t>(last_is_larger ? r : c)] += q / static_cast<double>(std::max(rows, cols));
                    mean_col[static_cast<size_t>(last_is_larger ? c : r)] += q / static_cast<double>(std::min(rows, cols));
                }
            double mean = 0;
            for (size_t i = 0; i < v_row.size(); ++i) v_row[i] = s.decay * v_row[i] + (1 - s.decay) * mean_row[i], mean += v_row[i] / static_cast<double>(v_row.size());
            for (size_t i = 0; i < v_col.size(); ++i) v_col[i] = s.decay * v_col[i] + (1 - s.decay) * mean_col[i];
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t c = 0; c < cols; ++c) {
                    const size_t i = static_cast<size_t>(r * cols + c);
                    u[i] = g[i] / std::sqrt(v_row[static_cast<size_t>(last_is_larger ? r : c)] / mean) / std::sqrt(v_col[static_cast<size_t>(last_is_larger ? c : r)]);
                }
        }
        const double clip = s.clipping_threshold > 0 ? std::max(1.0, rms(u) / s.clipping_threshold) : 1.0;
        const double scale = s.scale_by_parameter ? std::max(rms(parameter), s.minimum_scale) : 1.0;
        for (size_t i = 0; i < n; ++i) parameter[i] -= s.rate * scale * u[i] / clip;
    }
};

Vector values(const Tensor& t) {
    Vector out;
    for (int64_t r = 0; r < t.rows(); ++r)
        for (int64_t c = 0; c < t.cols(); ++c) out.push_back(get(t, r, c));
    return out;
}
Tensor as_tensor(Context& context, const Vector& x, Shape shape) {
    const Tensor t = context.allocate(DType::f64, shape);
    std::copy(x.begin(), x.end(), t.as<double>());
    return t;
}

ops::AdafactorTensor adafactor_tensor(Context& context, DType type, Shape shape, uint64_t seed) {
    ops::AdafactorTensor t;
    t.parameter = random(context, type, shape, seed), t.gradient = random(context, type, shape, seed + 1);
    if (ops::adafactor_factors(shape, 128)) {
        t.v_row = context.zeros(type, {std::min(shape[0], shape[1])}), t.v_col = context.zeros(type, {std::max(shape[0], shape[1])});
    } else {
        t.v = context.zeros(type, shape);
    }
    return t;
}

const std::vector<Shape> shapes = {{1}, {17}, {3, 5}, {127, 300}, {128, 128}, {136, 128}, {130, 257}, {140, 1030}, {1, 40000}, {2, 200, 129}};
/// Experts of the last shape are tensors of their own.
std::vector<Shape> flat_shapes() {
    std::vector<Shape> all(shapes.begin(), shapes.end() - 1);
    all.push_back({200, 129}), all.push_back({200, 129});
    return all;
}

std::vector<ops::AdafactorSettings> adafactor_steps() {
    std::vector<ops::AdafactorSettings> steps(4);
    for (size_t t = 0; t < steps.size(); ++t) steps[t].rate = 0.01 / static_cast<double>(t + 1), steps[t].decay = 1 - std::pow(static_cast<double>(t + 1), -0.8);
    steps[2].gradient_scale = 0.125, steps[3].clipping_threshold = 0.5;
    return steps;
}

}  // namespace

TEST_SUITE("ops/optimizer") {
    TEST_CASE("Adafactor equals the literal definition, step after step") {
        for (const bool scaled : {true, false}) {
            for (const DType type : {DType::f64, DType::f32}) {
                TestContext context;
                std::vector<ops::AdafactorTensor> tensors;
                std::vector<LiteralAdafactor> literal;
                std::vector<Vector> parameters;
                for (const Shape& shape : flat_shapes()) {
                    tensors.push_back(adafactor_tensor(context, type, shape, 10 * tensors.size()));
                    literal.push_back({shape, ops::adafactor_factors(shape, 128), {}, {}, {}});
                    parameters.push_back(values(tensors.back().parameter));
                }
                for (const ops::AdafactorSettings& given : adafactor_steps()) {
                    ops::AdafactorSettings settings = given;
                    settings.scale_by_parameter = scaled;
                    if (!scaled) settings.clipping_threshold = 0;
                    for (size_t i = 0; i < tensors.size(); ++i) fill(tensors[i].gradient, 1000 * i + static_cast<uint64_t>(1e6 * given.decay), i % 2 ? 1.0 : 1e-3);
                    // The last expert gets nothing in the first step: its statistics stay at epsilon, its weights where they are.
                    if (given.decay == 0) std::memset(tensors.back().gradient.data, 0, static_cast<size_t>(tensors.back().gradient.bytes()));
                    ops::adafactor(context, tensors, settings);
                    for (size_t i = 0; i < tensors.size(); ++i) literal[i].step(parameters[i], values(tensors[i].gradient), settings);
                }
                for (size_t i = 0; i < tensors.size(); ++i) {
                    CAPTURE(i);
                    const auto same = [&](const char* what, const Tensor& got, const Vector& expected) { compare(what, got, as_tensor(context, expected, got.shape), type, Kind::reduction); };
                    same("adafactor parameter", tensors[i].parameter, parameters[i]);
                    if (tensors[i].v) same("adafactor state", tensors[i].v, literal[i].v);
                    else same("adafactor state", tensors[i].v_row, literal[i].v_row), same("adafactor state", tensors[i].v_col, literal[i].v_col);
                }
            }
        }
    }

    TEST_CASE("a tensor without gradient keeps its weights and decays its state") {
        TestContext context;
        ops::AdafactorTensor t = adafactor_tensor(context, DType::f32, {128, 130}, 1);
        ops::AdafactorSettings settings;
        settings.rate = 0.1;
        ops::adafactor(context, {&t, 1}, settings);
        const Vector before = values(t.parameter), state = values(t.v_col);
        std::memset(t.gradient.data, 0, static_cast<size_t>(t.gradient.bytes()));
        settings.decay = 0.5;
        ops::adafactor(context, {&t, 1}, settings);
        CHECK(values(t.parameter) == before);
        for (size_t i = 0; i < state.size(); ++i) CHECK(get(t.v_col, 0, static_cast<int64_t>(i)) == doctest::Approx(state[i] / 2).epsilon(1e-6));
    }

    TEST_CASE("a squared norm in a tensor clips as the host's factor does, bit for bit, and keeps out what is not finite or too large") {
        constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
        for (const DType type : {DType::f64, DType::f32}) {
            TestContext context;
            const Tensor squared_norm = context.zeros(DType::f64, {1});
            for (const auto& [norm, clip] : std::vector<std::pair<double, double>>{{9, 3}, {9, 0}, {2, 3}, {0, 3}, {nan, 3}, {infinity, 0}, {1e18, 3}}) {
                CAPTURE(norm);
                const bool applied = norm < 1e18;
                std::vector<ops::AdafactorTensor> adafactor;
                std::vector<ops::AdamWTensor> adamw;
                for (int copy = 0; copy < 2; ++copy) {
                    for (const Shape& shape : {Shape{130, 129}, Shape{17}}) adafactor.push_back(adafactor_tensor(context, type, shape, 5));
                    adamw.push_back({random(context, type, {33}, 1), random(context, type, {33}, 2), random(context, type, {33}, 3), random(context, type, {33}, 4)});
                    for (int64_t i = 0; i < 33; ++i) set(adamw.back().v, 0, i, std::abs(get(adamw.back().v, 0, i)));
                }
                squared_norm.as<double>()[0] = norm * norm;
                ops::AdafactorSettings from_host, from_tensor;
                from_host.rate = from_tensor.rate = 0.1, from_host.decay = from_tensor.decay = 0.5;
                from_host.gradient_scale = 0.5 * (clip > 0 && norm > clip ? clip / norm : 1.0);
                from_tensor.gradient_scale = 0.5, from_tensor.squared_norm = squared_norm, from_tensor.clip = clip;
                ops::AdamWSettings adamw_host{0.01, 0.9, 0.999, 1e-8, 0.1, 3, from_host.gradient_scale}, adamw_tensor{0.01, 0.9, 0.999, 1e-8, 0.1, 3, 0.5, squared_norm, clip};
                if (applied) ops::adafactor(context, {adafactor.data(), 2}, from_host), ops::adamw(context, {adamw.data(), 1}, adamw_host);
                ops::adafactor(context, {adafactor.data() + 2, 2}, from_tensor), ops::adamw(context, {adamw.data() + 1, 1}, adamw_tensor);
                for (size_t i = 0; i < 2; ++i) {
                    CHECK(same_bits(adafactor[i].parameter, adafactor[i + 2].parameter));
                    for (const auto slot : {&ops::AdafactorTensor::v, &ops::AdafactorTensor::v_row, &ops::AdafactorTensor::v_col})
                        if (adafactor[i].*slot) CHECK(same_bits(adafactor[i].*slot, adafactor[i + 2].*slot));
                }
                for (const auto slot : {&ops::AdamWTensor::parameter, &ops::AdamWTensor::m, &ops::AdamWTensor::v}) CHECK(same_bits(adamw[0].*slot, adamw[1].*slot));
            }
        }
    }

    TEST_CASE("what is factored") {
        CHECK(ops::adafactor_factors({128, 128}, 128));
        CHECK_FALSE(ops::adafactor_factors({127, 4096}, 128));
        CHECK_FALSE(ops::adafactor_factors({4096}, 128));
    }

    TEST_CASE("AdamW equals the literal definition, step after step") {
        for (const DType type : {DType::f64, DType::f32}) {
            TestContext context;
            std::vector<ops::AdamWTensor> tensors;
            std::vector<Vector> p, m, v;
            for (const Shape& shape : flat_shapes()) {
                ops::AdamWTensor t{random(context, type, shape, tensors.size()), make(context, type, shape), context.zeros(type, shape), context.zeros(type, shape), shape.rank > 1};
                tensors.push_back(t), p.push_back(values(t.parameter)), m.emplace_back(p.back().size()), v.emplace_back(p.back().size());
            }
            ops::AdamWSettings s{0.01, 0.9, 0.95, 1e-8, 0.1, 0, 0.5};
            for (s.step = 0; s.step < 4; ++s.step) {
                s.rate *= 0.7;
                for (size_t i = 0; i < tensors.size(); ++i) fill(tensors[i].gradient, 100 * i + static_cast<uint64_t>(s.step));
                ops::adamw(context, tensors, s);
                const double c1 = 1 - std::pow(0.9, s.step + 1), c2 = 1 - std::pow(0.95, s.step + 1);
                for (size_t i = 0; i < tensors.size(); ++i) {
                    const Vector g = values(tensors[i].gradient);
                    for (size_t j = 0; j < g.size(); ++j) {
                        if (tensors[i].decay) p[i][j] *= 1 - s.rate * 0.1;
                        m[i][j] = 0.9 * m[i][j] + 0.1 * 0.5 * g[j];
                        v[i][j] = 0.95 * v[i][j] + 0.05 * 0.25 * g[j] * g[j];
                        p[i][j] -= s.rate * (m[i][j] / c1) / (std::sqrt(v[i][j] / c2) + 1e-8);
                    }
                }
            }
            for (size_t i = 0; i < tensors.size(); ++i) {
                compare("adamw parameter", tensors[i].parameter, as_tensor(context, p[i], tensors[i].parameter.shape), type, Kind::elementwise);
                compare("adamw state", tensors[i].m, as_tensor(context, m[i], tensors[i].m.shape), type, Kind::elementwise);
                compare("adamw state", tensors[i].v, as_tensor(context, v[i], tensors[i].v.shape), type, Kind::elementwise);
            }
        }
    }

    TEST_CASE("bits depend neither on the number of threads nor on the other tensors") {
        TestContext context;
        std::vector<std::string> results;
        for (const int count : {1, 2, 3}) {
            for (const bool alone : {false, true}) {
                const Threads threads(count);
                Arena::Scope scope(context.arena);
                std::vector<ops::AdafactorTensor> tensors;
                for (const Shape& shape : std::vector<Shape>{{1500, 700}, {200, 129}, {700, 1500}, {1100000}, {300, 128}, {17}}) {  // three of them are shared by all threads
                    tensors.push_back(adafactor_tensor(context, DType::f32, shape, 10 * tensors.size()));
                }
                std::vector<ops::AdamWTensor> adamw;
                for (const ops::AdafactorTensor& t : tensors) {
                    const Tensor p = context.allocate(DType::f32, t.parameter.shape);
                    std::memcpy(p.data, t.parameter.data, static_cast<size_t>(p.bytes()));
                    adamw.push_back({p, t.gradient, context.zeros(DType::f32, p.shape), context.zeros(DType::f32, p.shape), true});
                }
                ops::AdafactorSettings settings;
                settings.rate = 0.1;
                const ops::AdamWSettings adamw_settings{0.01, 0.9, 0.999, 1e-8, 0.1, 0, 1};
                if (alone) {
                    for (size_t i = tensors.size(); i-- > 0;) ops::adafactor(context, {&tensors[i], 1}, settings), ops::adamw(context, {&adamw[i], 1}, adamw_settings);
                } else {
                    ops::adafactor(context, tensors, settings), ops::adamw(context, adamw, adamw_settings);
                }
                std::string bits;
                for (size_t i = 0; i < tensors.size(); ++i)
                    for (const Tensor& t : {tensors[i].parameter, adamw[i].parameter}) bits.append(static_cast<const char*>(t.data), static_cast<size_t>(t.bytes()));
                results.push_back(bits);
            }
        }
        for (const std::string& bits : results) CHECK(bits == results[0]);
    }
}
