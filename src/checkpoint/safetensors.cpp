#include "checkpoint/safetensors.hpp"

#include "checkpoint/hashed_file.hpp"
#include "core/file.hpp"

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace flanmoe {

namespace {

constexpr int64_t chunk_bytes = int64_t{1} << 20;
constexpr int64_t reference_header_limit = 100'000'000;

// Reads exactly `count` bytes or fails.
void read_at(int descriptor, const std::filesystem::path& path, int64_t offset, void* into, int64_t count) {
    char* target = static_cast<char*>(into);
    while (count > 0) {
        const ssize_t got = ::pread(descriptor, target, static_cast<size_t>(std::min<int64_t>(count, int64_t{1} << 30)), offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(Exit::io, "reading {} at byte {} failed: {}", path.string(), offset, std::strerror(errno));
        if (got == 0)
            fail(Exit::bad_checkpoint, "{} ends at byte {} while it is being read; do not change files that are in use", path.string(), offset);
        target += got, offset += got, count -= got;
    }
}

uint64_t little_endian(const unsigned char* bytes) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
    return value;
}

bool same_shape(const std::vector<int64_t>& stored, const Shape& shape) {
    return static_cast<int>(stored.size()) == shape.rank && std::equal(stored.begin(), stored.end(), shape.sizes.begin());
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path, const SafetensorsLimits& limits) : path_(path) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block us
    if (descriptor_ < 0) fail(Exit::missing_input, "cannot read {}: {}; check the path and its permissions", path.string(), std::strerror(errno));
    try {
        struct stat status {};
        if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode))
            fail(Exit::missing_input, "{} is not a plain file where a safetensors file is expected", path.string());
        file_bytes_ = status.st_size;
        unsigned char prefix[8];
        if (file_bytes_ < 8)
            fail(Exit::bad_checkpoint, "{} has {} bytes, less than the 8 of a safetensors length; it is truncated: get it again", path.string(),
                 file_bytes_);
        read_at(descriptor_, path, 0, prefix, 8);
        const uint64_t header_bytes = little_endian(prefix);
        if (header_bytes > static_cast<uint64_t>(limits.header_bytes))
            fail(Exit::bad_checkpoint,
                 "{}: a header of {} bytes is above the limit of {}; this is no safetensors file, or it should have been sharded", path.string(),
                 header_bytes, limits.header_bytes);
        if (header_bytes > static_cast<uint64_t>(file_bytes_ - 8))
            fail(Exit::bad_checkpoint, "{}: the header of {} bytes reaches past the end of the file of {}; it is truncated: get it again",
                 path.string(), header_bytes, file_bytes_);
        std::string header(header_bytes, '\0');
        read_at(descriptor_, path, 8, header.data(), static_cast<int64_t>(header_bytes));
        data_start_ = 8 + static_cast<int64_t>(header_bytes);
        entries_ = parse_safetensors_header(header, file_bytes_ - data_start_, path.string(), limits, metadata_);
    } catch (...) {
        ::close(descriptor_);
        throw;
    }
    by_name_.reserve(entries_.size());
    for (size_t i = 0; i < entries_.size(); ++i) by_name_.emplace(entries_[i].name, i);
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept { *this = std::move(other); }

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(file_bytes_, other.file_bytes_);
    std::swap(data_start_, other.data_start_);
    std::swap(entries_, other.entries_);  // the entries stay where they are, and so do the keys of by_name_
    std::swap(by_name_, other.by_name_);
    std::swap(metadata_, other.metadata_);
    return *this;
}

SafetensorsFile::~SafetensorsFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &entries_[found->second];
}

const TensorEntry& SafetensorsFile::at(std::string_view name) const {
    const TensorEntry* entry = find(name);
    if (!entry) fail(Exit::bad_checkpoint, "{} has no tensor {:?}; see its tensors with `flanmoe inspect`", path_.string(), name);
    return *entry;
}

void SafetensorsFile::read_bytes(const TensorEntry& entry, int64_t offset, void* into, int64_t count) const {
    require(offset >= 0 && count >= 0 && offset + count <= entry.bytes(), "bytes inside the tensor");
    read_at(descriptor_, path_, data_start_ + entry.begin + offset, into, count);
}

std::string SafetensorsFile::bytes(const TensorEntry& entry) const {
    std::string bytes(static_cast<size_t>(entry.bytes()), '\0');
    read_bytes(entry, 0, bytes.data(), entry.bytes());
    return bytes;
}

void SafetensorsFile::read_as(const TensorEntry& entry, const Tensor& into) const {
    if (!same_shape(entry.shape, into.shape))
        fail(Exit::bad_checkpoint, "{}: tensor {:?} has shape {} where {} is expected; the checkpoint is of another model", path_.string(),
             entry.name, entry.shape_text(), into.shape.text());
    if (entry.elements() == 0) return;
    if (entry.type == stored_type(into.dtype) && into.compact()) return read_bytes(entry, 0, into.data, entry.bytes());
    // Pieces of at most a chunk that do not cross a row of the target, unless its rows lie side by side.
    const int64_t run = into.compact() ? into.elements() : into.cols(), width = bits_of(entry.type) / 8, most = chunk_bytes / 8;
    std::vector<char> buffer(static_cast<size_t>(std::min(run, most) * std::max<int64_t>(width, 1)));
    for (int64_t start = 0; start < into.elements(); start += run) {
        for (int64_t done = 0; done < run; done += most) {
            const int64_t count = std::min(most, run - done);
            char* target = static_cast<char*>(into.data) + (start / run * into.ld + done) * size_of(into.dtype);
            if (natural_type(entry.type)) read_bytes(entry, (start + done) * width, buffer.data(), count * width);
            if (!natural_type(entry.type) || !convert_values(buffer.data(), entry.type, target, into.dtype, count))
                fail(Exit::bad_checkpoint, "{}: the {} values of tensor {:?} cannot be read as {}; store them in a type that holds them",
                     path_.string(), name_of(entry.type), entry.name, name_of(into.dtype));
        }
    }
}

HostTensor SafetensorsFile::load(const TensorEntry& entry) const {
    const std::optional<DType> type = natural_type(entry.type);
    if (!type)
        fail(Exit::bad_checkpoint, "{}: tensor {:?} is of type {}, which is not read; convert it to F32 or BF16", path_.string(), entry.name,
             name_of(entry.type));
    return load(entry, *type);
}

HostTensor SafetensorsFile::load(const TensorEntry& entry, DType type) const {
    if (entry.shape.size() > static_cast<size_t>(Shape::max_rank))
        fail(Exit::bad_checkpoint, "{}: tensor {:?} has shape {}; at most {} dimensions are read", path_.string(), entry.name, entry.shape_text(),
             Shape::max_rank);
    Shape shape;
    for (int64_t size : entry.shape) shape.sizes[static_cast<size_t>(shape.rank++)] = size;
    HostTensor tensor(type, shape);
    read_as(entry, tensor.view());
    return tensor;
}

void read_into(const SafetensorsFile& file, const TensorEntry& entry, Engine& engine, const Tensor& into) {
    if (engine.on_host()) return file.read_as(entry, into);
    require(into.compact(), "a compact tensor to read into");
    const HostTensor values(into.dtype, into.shape);
    file.read_as(entry, values.view());
    engine.upload(into.data, values.memory.get(), into.bytes());
}

void SafetensorsWriter::add(std::string name, const Tensor& values, DType as, Engine& engine) {
    require(name != "__metadata__" && name.size() <= static_cast<size_t>(SafetensorsLimits().name_bytes), "a tensor name that can be stored");
    items_.push_back({std::move(name), values.shape, as, values, {}});
    if (!engine.on_host()) items_.back().make = [&engine, values] { return to_host(engine, values); };
}

void SafetensorsWriter::add(std::string name, const Shape& shape, DType as, std::function<HostTensor()> make) {
    add(std::move(name), Tensor(nullptr, as, shape), as);
    items_.back().make = std::move(make);
}

int64_t SafetensorsWriter::tensor_bytes() const {
    int64_t sum = 0;
    for (const Item& item : items_) sum += item.shape.elements() * size_of(item.type);
    return sum;
}

namespace {

void write_values(HashedFile& file, const Tensor& values, DType type) {
    if (values.elements() == 0) return;
    const int64_t run = values.compact() ? values.elements() : values.cols(), most = chunk_bytes / 8;
    std::vector<char> buffer(static_cast<size_t>(std::min(run, most) * size_of(type)));
    for (int64_t start = 0; start < values.elements(); start += run) {
        for (int64_t done = 0; done < run; done += most) {
            const int64_t count = std::min(most, run - done);
            const char* source = static_cast<const char*>(values.data) + (start / run * values.ld + done) * size_of(values.dtype);
            if (values.dtype == type) {
                file.write({source, static_cast<size_t>(count * size_of(type))});
                continue;
            }
            require(convert_values(source, stored_type(values.dtype), buffer.data(), type, count), "values that fit the stored type");
            file.write({buffer.data(), static_cast<size_t>(count * size_of(type))});
        }
    }
}

}  // namespace

std::vector<const SafetensorsWriter::Item*> SafetensorsWriter::in_order() const {
    std::vector<const Item*> order;
    for (const Item& item : items_) order.push_back(&item);
    std::sort(order.begin(), order.end(), [](const Item* a, const Item* b) {
        const StoredType left = stored_type(a->type), right = stored_type(b->type);
        return left != right ? left > right : a->name < b->name;
    });
    return order;
}

void SafetensorsWriter::make_all() const {
    for (const Item* item : in_order())
        if (item->make) item->make();
}

std::string SafetensorsWriter::write(const std::filesystem::path& path) const {
    const std::vector<const Item*> order = in_order();
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata_.empty()) header["__metadata__"] = metadata_;
    std::string text = header.dump();
    text.pop_back();
    int64_t offset = 0;
    for (size_t i = 0; i < order.size(); ++i) {
        const Item& item = *order[i];
        require(i == 0 || order[i - 1]->name != item.name || order[i - 1]->type != item.type, "tensor names that differ");
        nlohmann::ordered_json entry;
        entry["dtype"] = name_of(stored_type(item.type));
        entry["shape"] = std::vector<int64_t>(item.shape.sizes.begin(), item.shape.sizes.begin() + item.shape.rank);
        const int64_t bytes = item.shape.elements() * size_of(item.type);
        entry["data_offsets"] = {offset, offset + bytes};
        offset += bytes;
        if (text.size() > 1) text += ',';
        text += nlohmann::json(item.name).dump() + ":" + entry.dump();
    }
    text += '}';
    text.append((8 - text.size() % 8) % 8, ' ');
    if (static_cast<int64_t>(text.size()) > reference_header_limit)
        fail(Exit::cannot_create, "{}: {} tensors need a header of {} bytes, above the 100,000,000 of the format; shard them", path.string(),
             items_.size(), text.size());

    HashedFile file(path);
    std::string prefix;
    for (int i = 0; i < 8; ++i) prefix += static_cast<char>(text.size() >> (8 * i) & 255);
    file.write(prefix);
    file.write(text);
    for (const Item* item : order) {
        if (!item->make) {
            write_values(file, item->values, item->type);
            continue;
        }
        const HostTensor made = item->make();
        require(made.shape == item->shape, "values of the shape that was announced");
        write_values(file, made.view(), item->type);
    }
    return file.close();
}

std::map<std::string, HostTensor> load_all(const std::filesystem::path& path) {
    const SafetensorsFile file(path);
    std::map<std::string, HostTensor> tensors;
    for (const TensorEntry& entry : file.entries()) tensors.emplace(entry.name, file.load(entry));
    return tensors;
}

void save_all(const std::filesystem::path& path, const std::map<std::string, HostTensor>& tensors) {
    SafetensorsWriter writer;
    for (const auto& [name, tensor] : tensors) writer.add(name, tensor.view());
    std::filesystem::path temporary = path;
    temporary += ".tmp";
    writer.write(temporary);
    std::error_code error;
    std::filesystem::rename(temporary, path, error);
    if (error) fail(Exit::io, "renaming {} to {} failed: {}", temporary.string(), path.string(), error.message());
    sync_directory(path.parent_path());
}

}  // namespace flanmoe
