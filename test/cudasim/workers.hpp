// Host threads that wait for work.
#pragma once

#include <functional>

namespace cudasim {

/// Runs `work` on `count` host threads at once, the caller being one; returns when all have ended.
void run_on_workers(int count, const std::function<void()>& work);

}  // namespace cudasim
