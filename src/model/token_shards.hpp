// Tokens that tensor ranks share between sub-layers: sequence parallelism (Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer
// Models", section 4.2.2).
//
// With pass.sequence_parallel every tensor rank has one run of a stack's tokens wherever nothing is split: residual stream, norms and dropout need 1 / n of memory
// and time. Before a sub-layer the runs are gathered, after it the ranks' shares of its result are summed and divided in one: together they send what the one
// sum of collectives.hpp does. n ranks have m = ceil(N / n) rows each of N; what is missing at the end are zeros, which norms leave zeros.
#pragma once

#include "model/pass.hpp"

namespace flanmoe {

class TokenShards {
public:
    TokenShards(Pass& pass, int64_t tokens);

    bool divided() const { return ranks_ > 1; }   ///< false: every rank has all, and the functions below give what they are given
    int64_t rows() const { return rows_; }        ///< m
    int64_t first() const { return first_; }      ///< number of the first one here
    int64_t padded() const { return rows_ * ranks_; }

    /// This rank's rows of what every rank has whole: a view, or a copy in the arena where zeros are missing.
    Tensor own(const Tensor& whole) const;
    /// All ranks' rows into `into` [padded, D]; returns the N that count.
    Tensor gather(const Tensor& own, const Tensor& into) const;
    /// This rank's rows of the sum over ranks of `shares` [N, D], into `into` [m, D].
    Tensor sum(const Tensor& shares, const Tensor& into) const;
    /// Adds the ranks' shares of a gradient to `gradient`: of parameters that every rank has whole, used on its own tokens only.
    void add_gradient(const Tensor& share, const Tensor& gradient) const;

private:
    Tensor filled_up(const Tensor& whole) const;
    Pass& pass_;
    int64_t tokens_, ranks_, rows_, first_;
};

}  // namespace flanmoe
