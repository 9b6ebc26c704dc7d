// Permutations are bijections and look random; mixtures keep their proportions, caps and passes, and need no replay.
#include "data/mixture.hpp"

#include "fixtures.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

using namespace flanmoe;

namespace {

RandomKey key(uint64_t seed, uint32_t step = 0) { return {seed, step, 0, Purpose::shuffle}; }

}  // namespace

TEST_SUITE("data/mixture") {
    TEST_CASE("a permutation is a bijection at any size") {
        for (uint64_t count : {1, 2, 3, 17, 127, 256, 257, 5000}) {
            const Permutation permutation(count, key(1));
            std::set<uint64_t> seen;
            for (uint64_t i = 0; i < count; ++i) seen.insert(permutation(i));
            CHECK(seen.size() == count);
            CHECK(*seen.rbegin() == count - 1);
        }
        const Permutation large(uint64_t{1} << 40, key(2));
        CHECK(large(123456789) < (uint64_t{1} << 40));
    }

    TEST_CASE("permutations of three elements are equally likely") {
        // 6000 seeds over 6 orders: 1000 each, deviation 28.9; six deviations are allowed.
        std::map<std::vector<uint64_t>, int> seen;
        for (uint64_t seed = 0; seed < 6000; ++seed) {
            const Permutation permutation(3, key(seed));
            ++seen[{permutation(0), permutation(1), permutation(2)}];
        }
        CHECK(seen.size() == 6);
        for (const auto& [order, count] : seen) CHECK(std::abs(count - 1000) < 174);
    }

    TEST_CASE("where an element goes and how neighbours part are uniform") {
        constexpr uint64_t count = 1000;
        const Permutation permutation(count, key(3));
        double distance = 0;
        int rising = 0;
        for (uint64_t i = 0; i + 1 < count; ++i) {
            const auto a = static_cast<double>(permutation(i)), b = static_cast<double>(permutation(i + 1));
            distance += std::abs(a - b);
            rising += a < b;
        }
        CHECK(distance / (count - 1) == doctest::Approx(count / 3.0).epsilon(0.1));
        CHECK(std::abs(rising - 500) < 60);
    }

    TEST_CASE("an epoch holds every slot once; other epochs and seeds other orders") {
        Mixture mixture({50, 30}, {}, 0, 7, true);
        CHECK(mixture.epoch_size() == 80);
        std::vector<std::vector<int64_t>> orders;
        for (int64_t epoch = 0; epoch < 3; ++epoch) {
            std::set<std::pair<size_t, int64_t>> seen;
            orders.emplace_back();
            for (int64_t i = 0; i < 80; ++i) {
                const auto place = mixture.at(epoch * 80 + i);
                CHECK(place.pass == epoch);
                seen.insert({place.source, place.slot});
                orders.back().push_back(static_cast<int64_t>(place.source) * 1000 + place.slot);
            }
            CHECK(seen.size() == 80);
        }
        CHECK(orders[0] != orders[1]);
        CHECK(orders[1] != orders[2]);
        Mixture other({50, 30}, {}, 0, 8, true);
        CHECK(other.at(0).slot * 2 + static_cast<int64_t>(other.at(0).source) + other.at(1).slot * 300 !=
              mixture.at(0).slot * 2 + static_cast<int64_t>(mixture.at(0).source) + mixture.at(1).slot * 300);
        // Any place, in any order, gives the same.
        for (int64_t i : {200, 3, 150, 79, 80}) CHECK(mixture.at(i).slot == Mixture({50, 30}, {}, 0, 7, true).at(i).slot);
    }

    TEST_CASE("caps and weights: proportions of an epoch, and every slot of a source once a pass") {
        Mixture capped({50, 10}, {}, 20, 7, true);
        CHECK(capped.share(0) == 20);
        CHECK(capped.share(1) == 10);
        std::map<std::pair<int64_t, int64_t>, int> seen;  // pass and slot of source 0
        for (int64_t i = 0; i < 5 * capped.epoch_size(); ++i)
            if (const auto place = capped.at(i); place.source == 0) ++seen[{place.pass, place.slot}];
        CHECK(seen.size() == 100);  // two whole passes
        for (const auto& [slot, times] : seen) CHECK(times == 1);

        Mixture weighted({90, 10}, {1.0, 3.0}, 0, 7, true);
        CHECK(weighted.share(0) == 25);
        CHECK(weighted.share(1) == 75);
        std::map<std::pair<int64_t, int64_t>, int> small;
        for (int64_t i = 0; i < 2 * weighted.epoch_size(); ++i)
            if (const auto place = weighted.at(i); place.source == 1) ++small[{place.pass, place.slot}];
        CHECK(small.size() == 150);
        Mixture uneven({10, 10, 10}, {1.0, 1.0, 1.0}, 0, 7, true);
        CHECK(uneven.share(0) + uneven.share(1) + uneven.share(2) == 30);
        Mixture thirds({5, 5}, {2.0, 1.0}, 0, 7, true);
        CHECK(thirds.share(0) == 7);
        CHECK(thirds.share(1) == 3);
    }

    TEST_CASE("without shuffling the order is that of the sources") {
        Mixture mixture({3, 2}, {}, 0, 7, false);
        std::vector<int64_t> order;
        for (int64_t i = 0; i < 6; ++i) order.push_back(static_cast<int64_t>(mixture.at(i).source) * 10 + mixture.at(i).slot);
        CHECK(order == std::vector<int64_t>{0, 1, 2, 10, 11, 0});
    }
}
