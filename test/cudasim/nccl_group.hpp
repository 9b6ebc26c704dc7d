// What the ranks of a group of NCCL's stand-in pass each other: threads of one process through its memory, processes through files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace cudasim {

using Bytes = std::vector<std::byte>;

/// Touched under the simulator's lock. Nothing in it waits.
class NcclGroup {
public:
    virtual ~NcclGroup() = default;
    /// A rank's part of a collective; the collectives of a rank follow each other.
    virtual void publish(int64_t collective, int rank, Bytes bytes) = 0;
    virtual bool all_published(int64_t collective) = 0;
    /// Everyone's part, by rank; each rank takes it once.
    virtual std::vector<Bytes> take(int64_t collective, int rank) = 0;
    /// Messages between two ranks, in order.
    virtual void send(int from, int to, Bytes bytes) = 0;
    virtual bool has_sent(int from, int to) = 0;
    virtual Bytes receive(int from, int to) = 0;
};

std::unique_ptr<NcclGroup> group_of_threads(int ranks);
/// Of one rank of a group whose name all its processes know; the last files stay in the folder. From now on waits look for others' files.
std::unique_ptr<NcclGroup> group_of_processes(const std::filesystem::path& folder, const std::string& name, int ranks);

}  // namespace cudasim
