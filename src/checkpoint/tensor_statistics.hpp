// Numbers about stored tensors, read in pieces: moments and extremes, how far experts lie apart, how far two versions differ.
//
// Everything is summed in double in the order of the data, tensor by tensor: the same numbers for any number of threads.
#pragma once

#include "checkpoint/model_directory.hpp"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace flanmoe {

struct Statistics {
    int64_t count = 0;       ///< values, the non-finite ones included
    int64_t zeros = 0;
    int64_t non_finite = 0;  ///< left out of everything below
    double minimum = std::numeric_limits<double>::infinity(), maximum = -std::numeric_limits<double>::infinity();
    double mean = 0;
    double squares = 0;      ///< sum of squared deviations from the mean
    double norm2 = 0;        ///< sum of squares

    double deviation() const;
    double norm() const;
    void merge(const Statistics& other);
};

/// Types that are not numbers to us give an empty result (count 0).
Statistics statistics(const SafetensorsFile& file, const TensorEntry& entry);
/// Of many tensors, on all cores.
std::vector<Statistics> statistics(const std::vector<WeightFiles::Found>& tensors);

/// Experts of one matrix of one layer: distance of two = |A - B| / ((|A| + |B|) / 2); 0 = equal, 1.41 = independent.
struct ExpertSpread {
    std::string name;  ///< with {e} for the expert
    int64_t experts = 0;
    double mean = 0, least = 0, most = 0;
    int64_t closest_a = 0, closest_b = 0;  ///< the pair with the least distance
};
std::vector<ExpertSpread> expert_spreads(const WeightFiles& weights);

/// Two tensors of the same shape: largest absolute difference and |A - B| / |A|.
struct TensorDifference {
    double largest = 0, relative = 0;
    bool equal = true;  ///< every value is the same (NaN equals NaN)
};
TensorDifference difference(const WeightFiles::Found& a, const WeightFiles::Found& b);

}  // namespace flanmoe
