#include "checkpoint/hashed_file.hpp"

#include "core/error.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace flanmoe {

namespace {

std::string hex(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

struct FreeState {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

std::unique_ptr<XXH3_state_t, FreeState> new_state() {
    std::unique_ptr<XXH3_state_t, FreeState> state(XXH3_createState());
    if (!state) throw std::bad_alloc();
    XXH3_128bits_reset(state.get());
    return state;
}

}  // namespace

struct HashedFile::State {
    std::unique_ptr<XXH3_state_t, FreeState> hash = new_state();
};

HashedFile::HashedFile(const std::filesystem::path& path) : file_(path), state_(std::make_unique<State>()) {}
HashedFile::~HashedFile() = default;

void HashedFile::write(std::string_view bytes) {
    XXH3_128bits_update(state_->hash.get(), bytes.data(), bytes.size());
    file_.write(bytes);
}

std::string HashedFile::close() {
    file_.close();
    return hex(XXH3_128bits_digest(state_->hash.get()));
}

std::string hash_file(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail(Exit::missing_input, "cannot read {}: {}; check the path and its permissions", path.string(), std::strerror(errno));
    const auto state = new_state();
    std::vector<char> block(size_t{1} << 20);
    for (;;) {
        const ssize_t got = ::read(descriptor, block.data(), block.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            const int reason = errno;
            ::close(descriptor);
            fail(Exit::io, "reading {} failed: {}", path.string(), std::strerror(reason));
        }
        if (got == 0) break;
        XXH3_128bits_update(state.get(), block.data(), static_cast<size_t>(got));
    }
    ::close(descriptor);
    return hex(XXH3_128bits_digest(state.get()));
}

std::string hash_bytes(std::string_view bytes) { return hex(XXH3_128bits(bytes.data(), bytes.size())); }

std::string write_hashed(const std::filesystem::path& path, std::string_view bytes) {
    HashedFile file(path);
    file.write(bytes);
    return file.close();
}

}  // namespace flanmoe
