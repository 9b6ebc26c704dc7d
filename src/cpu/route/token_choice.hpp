// Token choice: Switch, GShard, T5X top-k, ST-MoE, dropless and loss-free routing are this rule with other settings.
//   choose: each token's k best experts, their gates, and which of the later choices pass the second policy
//   decide: all first choices of a group claim slots, then all second ones, and so on
// Routers that choose by other scores replace pick().
#pragma once

#include "cpu/route/router.hpp"

namespace flanmoe::cpu {

template <class T>
class TokenChoice : public Router<T> {
public:
    TokenChoice(Context& context, RouteWork<T>& work);
    void choose(int64_t first, int64_t last, int32_t* load) override;
    void decide(int64_t group, int64_t routable_tokens, int64_t capacity) override;
    void emit(int64_t group) override;

protected:
    /// Writes the k experts of token n, the best first, to choice[0 .. k).
    virtual void pick(int64_t n, int32_t* choice, T* scratch) const;
    using Router<T>::w;
    const int64_t k;

private:
    enum State : uint8_t { rejected, wanted, kept };  // by the second policy; wanted but without a slot; kept
    void apply_second_policy(int64_t first, int64_t last);

    int32_t* choices;  // [N, k]
    const T* bias;     // [E] or null
    const T* scores;   // [N, E] or null
    T* gates;          // [N, k]
    uint8_t* states;   // [N, k]
    int32_t* order;    // [N] tokens of a group in the order in which they claim slots
};

}  // namespace flanmoe::cpu
