// What the two halves of the simulated runtime share: streams.cpp (queues, graphs, launches) and device.cpp (errors, memory, the machine).
#pragma once

#include "cudasim/runtime_api.hpp"

#include <mutex>

namespace cudasim {

/// Held by every call that touches what is below or a queue.
std::recursive_mutex& mutex();
Counters& count();

/// Keeps the error for cudaGetLastError, and returns it.
cudaError_t set_error(cudaError_t error);
/// A kernel went wrong: keeps the sentence, drops all queued work, returns cudaErrorLaunchFailure.
cudaError_t fail(std::string sentence);
bool failed();
/// What calls return that did their own part: a kernel may have gone wrong before. Other errors are those of one call.
cudaError_t failure();

/// A variable of the environment; Exit::usage if it is set to anything but a number from 0 on.
uint64_t number_of(const char* variable, uint64_t otherwise);

std::string beyond_limits(const Launch& launch);  // scheduler.cpp: what hardware refuses

cudaError_t queue_work(cudaStream_t stream, std::function<void()> work, const void* kernel = nullptr);
/// The same, not before `ready`, which a queue may ask at any time: a collective that other ranks' streams take part in.
cudaError_t queue_work_when(std::function<bool()> ready, cudaStream_t stream, std::function<void()> work, const void* kernel = nullptr);
bool capturing(cudaStream_t stream);
/// An error, which also spoils the capture, if some stream captures.
cudaError_t refuse_in_capture();
int this_device();  ///< of the calling thread
void finish_all();  ///< of this device: others' streams may wait for what this thread has not queued yet
void finish(cudaStream_t stream);
void drop_work();
void look_around_while_waiting();  ///< what queued work waits for may come from other processes

}  // namespace cudasim
