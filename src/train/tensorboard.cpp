#include "train/tensorboard.hpp"

#include "core/error.hpp"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <cmath>

namespace flanmoe {

namespace {

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

constexpr std::array<uint32_t, 256> crc_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) ? 0x82f63b78u : 0);
        table[i] = c;
    }
    return table;
}

template <class T>
void put_fixed(std::string& out, T value) {
    static_assert(std::endian::native == std::endian::little);
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_varint(std::string& out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
    out += static_cast<char>(value);
}

// Protocol buffer fields: a tag of number and wire type (0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes), then the value.
void put_tag(std::string& out, uint64_t field, uint64_t wire_type) { put_varint(out, field << 3 | wire_type); }
void put_bytes(std::string& out, uint64_t field, std::string_view bytes) {
    put_tag(out, field, 2);
    put_varint(out, bytes.size());
    out.append(bytes);
}

std::string event(double wall_time, int64_t step) {
    std::string out;
    put_tag(out, 1, 1);
    put_fixed(out, wall_time);
    if (step != 0) {
        put_tag(out, 2, 0);
        put_varint(out, static_cast<uint64_t>(step));
    }
    return out;
}

std::string framed(std::string_view payload) {
    std::string out;
    put_fixed(out, static_cast<uint64_t>(payload.size()));
    put_fixed(out, masked_crc32c(out));
    out.append(payload);
    put_fixed(out, masked_crc32c(payload));
    return out;
}

std::filesystem::path new_event_file(const std::filesystem::path& folder) {
    char host[256] = "localhost";
    ::gethostname(host, sizeof host - 1);
    for (int n = 0;; ++n) {
        const std::filesystem::path path = folder / fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<int64_t>(now()), host, ::getpid(), n);
        if (!std::filesystem::exists(path)) return path;
    }
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
    static constexpr std::array<uint32_t, 256> table = crc_table();
    uint32_t c = ~0u;
    for (const char byte : bytes) c = table[(c ^ static_cast<unsigned char>(byte)) & 0xff] ^ (c >> 8);
    return ~c;
}

uint32_t masked_crc32c(std::string_view bytes) {
    const uint32_t c = crc32c(bytes);
    return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

std::string event_file_version(double wall_time) {
    std::string out = event(wall_time, 0);
    put_bytes(out, 3, "brain.Event:2");
    return framed(out);
}

std::string event_scalar(double wall_time, int64_t step, std::string_view tag, float value) {
    std::string inner, summary, out = event(wall_time, step);
    put_bytes(inner, 1, tag);
    put_tag(inner, 2, 5);
    put_fixed(inner, value);
    put_bytes(summary, 1, inner);
    put_bytes(out, 5, summary);
    return framed(out);
}

std::string event_session_start(double wall_time, int64_t step) {
    std::string session, out = event(wall_time, step);
    put_tag(session, 1, 0);
    put_varint(session, 1);  // START
    put_bytes(out, 7, session);
    return framed(out);
}

EventFile::EventFile(const std::filesystem::path& folder, int64_t resumed_step) : file_(new_event_file(folder)) {
    // Viewers take the first session mark of a folder as its beginning; at every later one they drop the steps from its step on.
    file_.append(event_file_version(now()) + event_session_start(now(), resumed_step > 0 ? resumed_step + 1 : 0));
}

void EventFile::write(std::string_view kind, int64_t step, const Metrics& metrics) {
    std::string records;
    for (const auto& [name, value] : metrics)
        if (std::isfinite(value)) records += event_scalar(now(), step, fmt::format("{}/{}", kind, name), static_cast<float>(value));
    file_.append(records);
}

}  // namespace flanmoe
