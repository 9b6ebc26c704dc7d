// Layout of the flat arrays, initial weights, and the compute copy.
#include "model/parameters.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

using namespace flanmoe;

namespace {

std::vector<Parameter> projections() {
    return {{.name = "q", .shape = {4, 6}, .deviation = 0.5}, {.name = "k", .shape = {4, 6}, .deviation = 0.5}, {.name = "v", .shape = {2, 6}, .deviation = 0.5}};
}
std::vector<Parameter> experts() {
    return {{.name = "e{e}.wi_0", .shape = {3, 5}, .experts = 3}, {.name = "e{e}.wi_1", .shape = {3, 5}, .experts = 3}};
}

}  // namespace

TEST_SUITE("model/parameters") {
    TEST_CASE("a group lies side by side; experts are interleaved") {
        ParameterStore store;
        CHECK(store.declare(projections()) == 0);
        CHECK(store.declare(experts()) == 3);
        store.allocate(DType::f32, true);
        const auto start = [&](const char* name, int64_t e = 0) { return store.gradient(*store.find(name), e).as<float>() - store.flat_gradient().as<float>(); };
        CHECK(start("q") == 0);
        CHECK(start("k") == 24);
        CHECK(start("v") == 48);
        CHECK(start("e{e}.wi_0") == 64);  // groups begin at multiples of 64
        CHECK(start("e{e}.wi_1") == 79);
        CHECK(start("e{e}.wi_0", 1) == 94);
        CHECK(start("e{e}.wi_1", 2) == 139);
        CHECK(store.parameter_count() == 60 + 90);
        CHECK(store.flat_gradient().elements() == 64 + 128);
        CHECK(store.records()[3].tensor_name(2) == "e2.wi_0");
        CHECK(store.find("nothing") == nullptr);
    }
    TEST_CASE("initial weights depend on seed and name alone") {
        ParameterStore a, b, c;
        a.declare(projections()), a.declare(experts());
        b.declare(experts()), b.declare(projections());  // another order
        c.declare(projections());
        for (ParameterStore* store : {&a, &b, &c}) store->allocate(DType::f32, false);
        a.initialise(1), b.initialise(1), c.initialise(2);
        for (const char* name : {"q", "e{e}.wi_1"})
            for (int64_t i = 0; i < 15; ++i) CHECK(a.master(*a.find(name)).as<float>()[i] == b.master(*b.find(name)).as<float>()[i]);
        CHECK(a.master(*a.find("q")).as<float>()[0] != c.master(*c.find("q")).as<float>()[0]);
        CHECK(a.master(*a.find("e{e}.wi_0"), 0).as<float>()[0] != a.master(*a.find("e{e}.wi_0"), 1).as<float>()[0]);
        CHECK(a.master(*a.find("q")).as<float>()[0] != a.master(*a.find("k")).as<float>()[0]);
    }
    TEST_CASE("mean and deviation of the initialisers") {
        for (const Init init : {Init::normal, Init::truncated_normal}) {
            ParameterStore store;
            store.declare({{.name = "w", .shape = {400, 250}, .init = init, .deviation = 0.3}});
            store.allocate(DType::f32, false);
            store.initialise(5);
            const float* w = store.master(store.records()[0]).as<float>();
            double sum = 0, squares = 0, largest = 0;
            for (int64_t i = 0; i < 100000; ++i) sum += w[i], squares += static_cast<double>(w[i]) * w[i], largest = std::max<double>(largest, std::fabs(w[i]));
            CHECK(std::fabs(sum / 100000) < 0.004);  // four standard errors
            CHECK(std::sqrt(squares / 100000) == doctest::Approx(0.3).epsilon(0.01));
            // Cut at two deviations of the normal before it is scaled up; a whole normal goes beyond four in 100,000 draws.
            CHECK((init == Init::normal ? largest > 4 * 0.3 : largest <= 2 * 0.3 / 0.8796));
        }
    }
    TEST_CASE("compute copies") {
        ParameterStore store;
        store.declare(projections());
        store.allocate(DType::bf16, true);
        store.initialise(1);
        const Parameter& q = store.records()[0];
        CHECK(store.master_type() == DType::f32);
        CHECK(static_cast<float>(store.compute(q).as<bf16>()[3]) == static_cast<float>(bf16(store.master(q).as<float>()[3])));
        store.master(q).as<float>()[3] = 7;
        CHECK(static_cast<float>(store.compute(q).as<bf16>()[3]) != 7);
        store.update_compute();
        CHECK(static_cast<float>(store.compute(q).as<bf16>()[3]) == 7);
        store.gradient(q).as<float>()[0] = 1;
        store.zero_gradients();
        CHECK(store.gradient(q).as<float>()[0] == 0);
        store.allocate(DType::f64, true);
        CHECK(store.compute(q).data == store.master(q).data);
    }
}
