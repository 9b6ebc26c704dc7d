// Forced balanced routing, for measurements: token choice whose choices go round the experts, whatever the probabilities say.
// Choice r of the i-th routable token of a group is expert (first k + i k + r) mod E, `first` being the index of the group's first token in the step: over
// rows without padding every expert gets the same number of tokens, one more or less, and how the batch is cut changes nothing.
#include "cpu/route/token_choice.hpp"

namespace flanmoe::cpu {

namespace {

template <class T>
class Balanced : public TokenChoice<T> {
public:
    Balanced(Context& context, RouteWork<T>& work) : TokenChoice<T>(context, work), turn_(static_cast<size_t>(work.tokens)) {
        for (int64_t g = 0; g < work.groups; ++g) {
            uint64_t next = work.step_token(g) * static_cast<uint64_t>(work.a.rule.k);
            for (int64_t n = g * work.group_tokens; n < (g + 1) * work.group_tokens; ++n) {
                turn_[static_cast<size_t>(n)] = next;
                if (work.routable(n)) next += static_cast<uint64_t>(work.a.rule.k);
            }
        }
    }

protected:
    void pick(int64_t n, int32_t* choice, T*) const override {
        for (int64_t r = 0; r < this->k; ++r) choice[r] = static_cast<int32_t>((turn_[static_cast<size_t>(n)] + static_cast<uint64_t>(r)) % static_cast<uint64_t>(this->w.experts));
    }

private:
    std::vector<uint64_t> turn_;  // [N] of the token's first choice
};

}  // namespace

template <class T>
std::unique_ptr<Router<T>> balanced(Context& context, RouteWork<T>& work) {
    return std::make_unique<Balanced<T>>(context, work);
}
template std::unique_ptr<Router<float>> balanced(Context&, RouteWork<float>&);
template std::unique_ptr<Router<double>> balanced(Context&, RouteWork<double>&);

}  // namespace flanmoe::cpu
