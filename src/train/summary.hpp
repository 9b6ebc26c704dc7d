// From the sums of a step to the figures that people watch.
#pragma once

#include "train/metrics.hpp"
#include "train/step.hpp"
#include "train/watch.hpp"

namespace flanmoe {

struct StepFigures {
    double seconds = 0;  ///< of the step, data included
    double waited = 0;   ///< for data
    double rate = 0;     ///< learning rate
    int64_t tokens = 0;  ///< real tokens of the step, both sides
    int64_t tokens_seen = 0;  ///< of the stage so far
    double flops = 0;    ///< model operations, forward x 3
    double matmul_rate = 0;  ///< of this machine, operations a second
};

/// The training record: the names of metric_name and, for sparse models, the router's figures.
Metrics summarise(const StepGradients& step, const StepFigures& figures, const Watch& watch);
/// The same terms of a validation set.
Metrics summarise_validation(const LossSums& sums);
/// Router figures alone: means over layers, then those of each layer as "encoder.1/utilization"; empty for dense models.
Metrics summarise_routing(const std::vector<RoutingReport>& reports);

}  // namespace flanmoe
