#include "train/metrics.hpp"

#include "core/error.hpp"
#include "core/file.hpp"

#include <cmath>
#include <cstdlib>

namespace flanmoe {

namespace {

// Step of a line as MetricsLog::write makes them; -1 for anything else.
int64_t step_of(std::string_view line) {
    constexpr std::string_view mark = "\",\"step\":";
    const size_t at = line.find(mark);
    if (!line.starts_with("{\"kind\":\"") || !line.ends_with('}') || at == std::string_view::npos) return -1;
    return std::strtoll(line.data() + at + mark.size(), nullptr, 10);  // stops at the comma that follows
}

// Cuts the file before the first line of a later step, or before what is not one of our lines. Lines ascend, so the rest is a prefix.
std::filesystem::path cut_after(const std::filesystem::path& path, int64_t step) {
    if (!std::filesystem::exists(path)) return path;
    const std::string text = read_file(path);
    size_t kept = 0;
    for (size_t end; (end = text.find('\n', kept)) != std::string::npos; kept = end + 1) {
        const int64_t line_step = step_of(std::string_view(text).substr(kept, end - kept));
        if (line_step < 0 || line_step > step) break;
    }
    if (kept < text.size()) std::filesystem::resize_file(path, kept);
    return path;
}

}  // namespace

double metric(const Metrics& metrics, std::string_view name, double missing) {
    for (const auto& [key, value] : metrics)
        if (key == name) return value;
    return missing;
}

MetricsLog::MetricsLog(const std::filesystem::path& path, int64_t resumed_step) : file_(cut_after(path, resumed_step)) {}

void MetricsLog::write(std::string_view kind, int64_t step, const Metrics& metrics) {
    std::string line = fmt::format("{{\"kind\":\"{}\",\"step\":{}", kind, step);
    for (const auto& [name, value] : metrics) line += std::isfinite(value) ? fmt::format(",\"{}\":{:.9g}", name, value) : fmt::format(",\"{}\":null", name);
    file_.append(line + "}\n");
}

}  // namespace flanmoe
