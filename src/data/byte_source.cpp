// One class for the three formats: a file descriptor, a buffer of raw bytes, and a zlib or Zstandard decoder where the first bytes ask for one.
#include "data/byte_source.hpp"

#include "core/error.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

namespace flanmoe {

namespace {
constexpr size_t block_bytes = size_t{1} << 18;
}

struct ByteSource::State {
    enum class Format { plain, gzip, zstandard };

    std::filesystem::path path;
    int descriptor = -1;
    int64_t consumed = 0;
    std::vector<char> raw = std::vector<char>(block_bytes);
    size_t begin = 0, end = 0;  // raw bytes not yet decoded
    bool file_ended = false;
    bool inside_member = false;  // the decoder waits for more of a gzip member or Zstandard frame
    Format format = Format::plain;
    z_stream inflater{};
    ZSTD_DStream* zstandard = nullptr;

    ~State() {
        if (format == Format::gzip) inflateEnd(&inflater);
        if (zstandard) ZSTD_freeDStream(zstandard);
        if (descriptor >= 0) ::close(descriptor);
    }

    void open();
    bool fill();
    size_t read_gzip(char* bytes, size_t size);
    size_t read_zstandard(char* bytes, size_t size);
    [[noreturn]] void damaged(std::string_view reason) const {
        fail(Exit::bad_data, "{} is damaged: {} (at byte {} of the file); copy or download it again", path.string(), reason,
             consumed - static_cast<int64_t>(end - begin));
    }
};

void ByteSource::State::open() {
    descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail(Exit::missing_input, "cannot read {}: {}; check the path and its permissions", path.string(), std::strerror(errno));
    struct stat status {};
    if (::fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode))
        fail(Exit::missing_input, "{} is a directory where a file is expected; name a file inside it", path.string());
    while (end < 4 && fill()) {
    }
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(raw[i]); };
    if (end >= 2 && byte(0) == 0x1f && byte(1) == 0x8b) {
        format = Format::gzip;
        if (inflateInit2(&inflater, 15 + 16) != Z_OK) fail(Exit::out_of_memory, "no memory left to decompress {}", path.string());
    } else if (end >= 4 && byte(0) == 0x28 && byte(1) == 0xb5 && byte(2) == 0x2f && byte(3) == 0xfd) {
        format = Format::zstandard;
        zstandard = ZSTD_createDStream();
        if (!zstandard) fail(Exit::out_of_memory, "no memory left to decompress {}", path.string());
    }
}

// Reads another block behind what is there; false at the end of the file.
bool ByteSource::State::fill() {
    if (file_ended) return false;
    if (begin == end) begin = end = 0;
    require(end < raw.size(), "room in the buffer of raw bytes");
    ssize_t got;
    do got = ::read(descriptor, raw.data() + end, raw.size() - end);
    while (got < 0 && errno == EINTR);
    if (got < 0) fail(Exit::io, "reading {} failed: {}", path.string(), std::strerror(errno));
    if (got == 0) file_ended = true;
    end += static_cast<size_t>(got);
    consumed += got;
    return got > 0;
}

size_t ByteSource::State::read_gzip(char* bytes, size_t size) {
    inflater.next_out = reinterpret_cast<Bytef*>(bytes);
    inflater.avail_out = static_cast<uInt>(size);
    while (inflater.avail_out == size) {
        if (begin == end && !fill()) {
            if (inside_member) damaged("its compressed data ends early");
            return 0;
        }
        inside_member = true;
        inflater.next_in = reinterpret_cast<Bytef*>(raw.data() + begin);
        inflater.avail_in = static_cast<uInt>(end - begin);
        const int result = inflate(&inflater, Z_NO_FLUSH);
        begin = end - inflater.avail_in;
        if (result == Z_STREAM_END) {
            inside_member = false;
            if (inflateReset(&inflater) != Z_OK) damaged("its gzip stream cannot go on");
        } else if (result != Z_OK && result != Z_BUF_ERROR) {
            damaged(inflater.msg ? inflater.msg : "its gzip data is invalid");
        }
    }
    return size - inflater.avail_out;
}

size_t ByteSource::State::read_zstandard(char* bytes, size_t size) {
    ZSTD_outBuffer output{bytes, size, 0};
    while (output.pos == 0) {
        if (begin == end && !fill()) {
            // The decoder may still hold output of a frame whose bytes it has all seen.
            ZSTD_inBuffer nothing{nullptr, 0, 0};
            if (inside_member && !ZSTD_isError(ZSTD_decompressStream(zstandard, &output, &nothing)) && output.pos > 0) break;
            if (inside_member) damaged("its compressed data ends early");
            return 0;
        }
        ZSTD_inBuffer input{raw.data() + begin, end - begin, 0};
        const size_t result = ZSTD_decompressStream(zstandard, &output, &input);
        begin += input.pos;
        if (ZSTD_isError(result)) damaged(ZSTD_getErrorName(result));
        inside_member = result != 0;
    }
    return output.pos;
}

ByteSource::ByteSource(const std::filesystem::path& path) : state_(std::make_unique<State>()) {
    state_->path = path;
    state_->open();
}

ByteSource::~ByteSource() = default;

int64_t ByteSource::consumed() const { return state_->consumed; }

size_t ByteSource::read(char* bytes, size_t size) {
    if (size == 0) return 0;
    size = std::min(size, block_bytes * 16);
    if (state_->format == State::Format::gzip) return state_->read_gzip(bytes, size);
    if (state_->format == State::Format::zstandard) return state_->read_zstandard(bytes, size);
    if (state_->begin == state_->end && !state_->fill()) return 0;
    const size_t taken = std::min(size, state_->end - state_->begin);
    std::memcpy(bytes, state_->raw.data() + state_->begin, taken);
    state_->begin += taken;
    return taken;
}

std::string read_all(ByteSource& source) {
    std::string all;
    std::vector<char> block(block_bytes);
    while (const size_t got = source.read(block.data(), block.size())) all.append(block.data(), got);
    return all;
}

bool LineReader::next(std::string& line) {
    size_t searched = position_;
    for (;;) {
        const size_t found = buffer_.find('\n', searched);
        if (found != std::string::npos || ended_) {
            const size_t stop = found != std::string::npos ? found : buffer_.size();
            if (found == std::string::npos && position_ == stop) return false;
            line.assign(buffer_, position_, stop - position_);
            begin_ = next_begin_;
            next_begin_ += static_cast<int64_t>(stop - position_) + (found != std::string::npos);
            position_ = found != std::string::npos ? found + 1 : stop;
            if (!line.empty() && line.back() == '\r') line.pop_back();
            ++line_;
            return true;
        }
        buffer_.erase(0, position_);
        position_ = 0;
        searched = buffer_.size();
        buffer_.resize(searched + block_bytes);
        const size_t got = source_.read(buffer_.data() + searched, block_bytes);
        buffer_.resize(searched + got);
        ended_ = got == 0;
    }
}

}  // namespace flanmoe
