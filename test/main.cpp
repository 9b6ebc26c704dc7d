// Runs every test of the project; see README.md here. `--device cuda` runs the operations' tests on the GPU, or on the simulator in the program that is built
// for it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "device.hpp"
#include "ops/engine.hpp"

#include <cstring>

namespace flanmoe::test {

namespace {
Device device = Device::cpu;
std::unique_ptr<Engine> engine;
}  // namespace

Device test_device() { return device; }
Engine& test_engine() { return engine ? *engine : host_engine(); }

}  // namespace flanmoe::test

int main(int argc, char** argv) {
    using namespace flanmoe;
    for (int i = 1; i + 1 < argc; ++i) {
        if (std::strcmp(argv[i], "--device") != 0 || std::strcmp(argv[i + 1], "cuda") != 0) continue;
        test::device = Device::cuda;
        test::engine = open_engine(Device::cuda);
    }
    const int result = doctest::Context(argc, argv).run();
    test::engine.reset();
    return result;
}
