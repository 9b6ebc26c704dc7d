// What a run will need on a cluster, before there is one: parameters, memory of a rank, bytes of its collectives, and the time of a step.
//
// A rank of a mesh computes a smaller model: heads, inner widths and vocabulary over the tensor ranks, experts over the expert ranks, rows over data x expert.
// What that model needs is counted by train/memory.hpp and train/step_work.hpp; the collectives are those of comm/ and of the layers. Rates of devices and links
// are sustained figures, not data sheets. Nothing overlaps here, so a real step may be faster.
#pragma once

#include "comm/communicator.hpp"
#include "comm/mesh.hpp"
#include "train/memory.hpp"
#include "train/step_work.hpp"

#include <optional>
#include <string>
#include <vector>

namespace flanmoe {

/// Between ranks: bytes a second that one rank can send while it receives as many, and seconds of a message.
struct Link {
    double bandwidth = 0, latency = 0;
};

struct Cluster {
    DeviceRates device;
    int64_t memory = 0;          ///< bytes of a device
    int ranks = 1;               ///< devices in all
    int ranks_of_node = 8;
    Link inside, between;        ///< of a node, and of the network
    std::string network;
    const Link& link(int span) const { return span <= ranks_of_node ? inside : between; }  ///< of a group that spans so many neighbours
};
/// Devices as rates_of() names them; networks "ethernet" (100 Gbit/s a node), "infiniband-200", "infiniband-400" (a link of so many Gbit/s for each device).
/// Exit::usage for another name.
Cluster cluster_of(const std::string& device, const std::string& network, int ranks, int ranks_of_node);

/// One purpose of communication in a step, as one rank sees it.
struct CollectivePlan {
    std::string purpose;
    std::string group;     ///< data, expert, tensor or replicas, as in comm/mesh.hpp
    Collective kind = Collective::all_reduce;
    int ranks = 1;         ///< of the group
    double calls = 0;
    double bytes = 0;      ///< that a rank sends in a step: the closed formulas of comm/communicator.hpp
    double seconds = 0;
};

struct RankPlan {
    MeshShape mesh;
    int64_t rows = 0;        ///< of the step, for a rank with the most
    int64_t micro_rows = 0;  ///< of a micro-batch
    int64_t parameters = 0;  ///< that this rank holds
    bool even_rows = false;  ///< dropless rows are taken to come evenly to the experts of all ranks: a rank whose experts are chosen more often needs more of everything
    MemoryNeed memory;
    StepPrediction compute;
    std::vector<CollectivePlan> collectives;
    double seconds() const;  ///< of a step: computing, then the collectives
    double sent() const;     ///< bytes in a step
};

/// Why a mesh cannot run the config; empty if it can.
std::string objection_to(const Config& config, const MeshShape& mesh);
/// One rank of the mesh with micro-batches of at most so many rows (0: as the config says). The mesh must be free of objections.
RankPlan plan_rank(const Config& config, const Cluster& cluster, const MeshShape& mesh, int64_t micro_rows = 0);
/// The fastest mesh and micro-batch (at most the config's) whose memory fits the devices; none if nothing does.
std::optional<RankPlan> best_plan(const Config& config, const Cluster& cluster);
/// The mesh whose ranks need the least memory, in micro-batches of one routing group, whether that fits or not; none if no mesh can run the config and give every rank rows.
std::optional<RankPlan> smallest_plan(const Config& config, const Cluster& cluster);

struct ModelCount {
    int64_t total = 0;
    double active = 0;            ///< parameters that a token uses: k of the experts, everything else
    double forward_flops = 0;     ///< a token of the config's rows, inputs and targets counted alike
};
ModelCount count_model(const Config& config);

}  // namespace flanmoe
