// Device copies of host tables that are the same step after step: the addresses and shapes of all tensors that an optimizer works on.
//
// A table is known by its bytes. The first time it is uploaded, which may wait for the device and must not happen while a graph is captured; every later call
// costs a comparison on the host and nothing on the device. Copies live as long as the engine; a run has a few.
#pragma once

#include "core/engine.hpp"
#include "core/error.hpp"

#include <cstring>
#include <vector>

namespace flanmoe::cuda {

class TableCache {
public:
    explicit TableCache(flanmoe::Engine& engine) : engine_(engine) {}

    /// The device's copy of these bytes; null if there are none.
    const void* find(const void* host, int64_t bytes) {
        if (bytes == 0) return nullptr;
        for (const Table& t : tables_)
            if (static_cast<int64_t>(t.host.size()) == bytes && std::memcmp(t.host.data(), host, t.host.size()) == 0) return t.device.data();
        const char* const first = static_cast<const char*>(host);
        Table table{{first, first + bytes}, Buffer(engine_, bytes)};
        void* const device = table.device.data();
        if (!device) fail(Exit::out_of_memory, "out of device memory: a table of {} bytes for the optimizer finds no room; choose a smaller model or batch", bytes);
        engine_.upload(device, host, bytes);
        tables_.push_back(std::move(table));
        return device;
    }

private:
    struct Table {
        std::vector<char> host;
        Buffer device;
    };
    flanmoe::Engine& engine_;
    std::vector<Table> tables_;
};

}  // namespace flanmoe::cuda
