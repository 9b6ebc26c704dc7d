// Copies from global to shared memory that run beside a CUDA thread (cp.async). Each lands at once or, as drawn, only when the thread waits for its group:
// a wait that is missing, or that lets one group too many be under way, leaves old bytes to be read.
#pragma once

namespace cudasim {

/// `bytes` of 16, the others zeros, in the thread's open group.
void async_copy(void* to, const void* from, int bytes);
/// Closes the thread's open group.
void async_commit();
/// All of the thread's closed groups but the latest `pending` have landed.
void async_wait(int pending);
/// Forgets what the threads of a block left under way.
void forget_async_copies();

}  // namespace cudasim
