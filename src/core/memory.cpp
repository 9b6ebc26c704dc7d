#include "core/memory.hpp"

#include <fmt/format.h>

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>

namespace flanmoe {

namespace {

constexpr int64_t unlimited = std::numeric_limits<int64_t>::max();

// The number after `key` in a file of "key number" lines; the first number if the key is empty; -1 if there is none ("max" included).
int64_t number_in(const std::string& path, const std::string& key) {
    std::ifstream file(path);
    std::string word;
    if (!key.empty())
        while (file >> word && word != key) {}
    int64_t value = -1;
    return file >> value ? value : -1;
}

// Limit less use of one control group; what is only cached from files can be had back.
int64_t room_of_group(const std::string& folder, const char* limit_name, const char* usage_name) {
    const int64_t limit = number_in(folder + "/" + limit_name, ""), used = number_in(folder + "/" + usage_name, "");
    if (limit < 0 || used < 0) return unlimited;
    const int64_t cached = std::max<int64_t>(0, number_in(folder + "/memory.stat", "inactive_file"));
    return std::max<int64_t>(0, limit - used + cached);
}

// The least room among this process's group and the groups around it, for both generations of control groups.
int64_t room_of_groups() {
    int64_t room = unlimited;
    const auto visit = [&](const std::string& root, std::string path, const char* limit_name, const char* usage_name) {
        for (;;) {
            room = std::min(room, room_of_group(root + path, limit_name, usage_name));
            const size_t slash = path.rfind('/');
            if (slash == std::string::npos) return;
            path.resize(slash);
        }
    };
    std::ifstream file("/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
        if (controllers.empty()) visit("/sys/fs/cgroup", path, "memory.max", "memory.current");
        if (("," + controllers + ",").find(",memory,") != std::string::npos) visit("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes");
    }
    return room;
}

int64_t room_of_address_space() {
    rlimit limit{};
    const int64_t pages = number_in("/proc/self/statm", "");
    if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || pages < 0) return unlimited;
    return std::max<int64_t>(0, static_cast<int64_t>(limit.rlim_cur) - pages * ::sysconf(_SC_PAGESIZE));
}

}  // namespace

int64_t available_memory() {
    const int64_t kilobytes = number_in("/proc/meminfo", "MemAvailable:");
    const int64_t room = std::min({kilobytes < 0 ? unlimited : kilobytes * 1024, room_of_groups(), room_of_address_space()});
    return room == unlimited ? -1 : room;
}

std::string human_bytes(int64_t bytes) {
    constexpr const char* units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double value = static_cast<double>(bytes);
    int unit = 0;
    while (value >= 999.5 && unit < 5) value /= 1000, ++unit;
    if (unit == 0) return fmt::format("{} B", bytes);
    return value < 9.95   ? fmt::format("{:.2f} {}", value, units[unit])
           : value < 99.5 ? fmt::format("{:.1f} {}", value, units[unit])
                          : fmt::format("{:.0f} {}", value, units[unit]);
}

}  // namespace flanmoe
