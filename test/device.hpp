// The device that the tests of operations run on, chosen when the test program starts.
#pragma once

#include "core/context.hpp"

namespace flanmoe::test {

Device test_device();
Engine& test_engine();  ///< of that device

}  // namespace flanmoe::test
