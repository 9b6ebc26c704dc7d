// Routing on the CPU: what every router shares, and the small interface behind which each decides (one file each beside this one).
//
// A call runs in four steps (route.cpp):
//   1. score:   probabilities of every token, their sums over blocks of tokens, and the router's choices (parallel over blocks)
//   2. decide:  who gets a slot (parallel over groups; inside a group the rule is sequential)
//   3. lay out: where the rows of every expert and group start (E x G additions)
//   4. emit:    row tables (parallel over groups)
// Blocks depend on the shape alone and are added in order: the bits do not depend on the number of threads.
#pragma once

#include "ops/route.hpp"

#include "cpu/vector_math.hpp"

#include <array>
#include <memory>
#include <vector>

namespace flanmoe::cpu {

/// A group's part of RouteArgs::statistics.
struct RouteSums : std::array<double, static_cast<size_t>(ops::RouteStatistic::count)> {
    double& operator[](ops::RouteStatistic s) { return data()[static_cast<size_t>(s)]; }
};

/// One call: the arguments, the sizes, and the tables that pass from step to step.
template <class T>
struct RouteWork {
    RouteWork(Context& context, const ops::RouteArgs& args);

    const ops::RouteArgs& a;
    int64_t tokens, experts, groups, group_tokens;
    const uint8_t* mask;

    std::vector<RouteSums> sums;  ///< [G]
    int32_t* rows;                ///< [G, E] rows that the expert keeps of the group (set by decide), then its first row of them
    int32_t* demand;              ///< [G, E] choices of the expert that its group wants (set by decide)

    bool routable(int64_t n) const { return !mask || mask[n]; }
    T* probabilities_of(int64_t n) const { return row_of<T>(a.probabilities, n); }
    /// Index of the group's first token in the step.
    uint64_t step_token(int64_t group) const { return a.first_token + static_cast<uint64_t>(group * group_tokens); }
    /// Enters row `row`: token n goes to expert e; `place` is its entry in token_rows.
    void write_row(int32_t row, int64_t n, int64_t e, T gate, int32_t place) const;
};

template <class T>
class Router {
public:
    explicit Router(RouteWork<T>& work) : w(work) {}
    virtual ~Router() = default;
    /// Step 1, where tokens choose: tokens [first, last), whose probabilities are known. Counts in load[E] what the balance loss counts.
    virtual void choose(int64_t first, int64_t last, int32_t* load) = 0;
    /// Step 2: who gets a slot of group `group`: sets its w.rows and w.demand, and the statistics that only this router knows.
    virtual void decide(int64_t group, int64_t routable_tokens, int64_t capacity) = 0;
    /// Step 4: enters the group's rows, which start at w.rows, and their places, which start at token_offsets of the group's first token; sets the rest of
    /// token_offsets and the statistics `gate` and `reached`.
    virtual void emit(int64_t group) = 0;

protected:
    RouteWork<T>& w;
};

template <class T>
std::unique_ptr<Router<T>> token_choice(Context& context, RouteWork<T>& work);
template <class T>
std::unique_ptr<Router<T>> expert_choice(Context& context, RouteWork<T>& work);
template <class T>
std::unique_ptr<Router<T>> balanced(Context& context, RouteWork<T>& work);

}  // namespace flanmoe::cpu
