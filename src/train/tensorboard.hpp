// TensorBoard event files, written by hand: a record is a length, its checksum, a protocol buffer and its checksum. Scalars only.
//
//   record:  u64 length | u32 masked crc of the 8 length bytes | payload | u32 masked crc of the payload        (little-endian, as TFRecord)
//   payload: Event { 1 wall_time: double, 2 step: int64, 3 file_version: string | 5 summary { 1 value { 1 tag, 2 simple_value: float } } | 7 session_log }
#pragma once

#include "train/log_file.hpp"
#include "train/metrics.hpp"

#include <cstdint>
#include <string>

namespace flanmoe {

/// CRC-32C (Castagnoli), as SSE 4.2 computes it.
uint32_t crc32c(std::string_view bytes);
/// The checksum as records hold it: rotated, with a constant added, so that the CRC of data that holds a CRC stays meaningful.
uint32_t masked_crc32c(std::string_view bytes);

/// One framed record each; wall_time in seconds since 1970.
std::string event_file_version(double wall_time);
std::string event_scalar(double wall_time, int64_t step, std::string_view tag, float value);
/// Start of a session: viewers forget what earlier files of the directory say about `step` and later ones.
std::string event_session_start(double wall_time, int64_t step);

/// A new event file in a folder; one folder is one run, each life of it has a file.
class EventFile {
public:
    EventFile(const std::filesystem::path& folder, int64_t resumed_step);
    /// Every finite metric under "kind/name".
    void write(std::string_view kind, int64_t step, const Metrics& metrics);

private:
    LogFile file_;
};

}  // namespace flanmoe
