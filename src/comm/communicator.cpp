#include "comm/communicator.hpp"

namespace flanmoe {

const char* name_of(Collective collective) {
    switch (collective) {
        case Collective::all_reduce: return "all-reduce";
        case Collective::all_gather: return "all-gather";
        case Collective::reduce_scatter: return "reduce-scatter";
        case Collective::all_to_all: return "all-to-all";
        case Collective::broadcast: return "broadcast";
        default: return "barrier";
    }
}

}  // namespace flanmoe
