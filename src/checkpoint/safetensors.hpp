// safetensors files: strict reader and a writer that is byte-identical with the reference implementation.
//
// Format (github.com/huggingface/safetensors, README "Format" and src/tensor.rs): u64 little-endian header length N, N bytes of JSON
// {name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {string: string}}, then the data without holes. Opening reads the
// header only; values are read with pread when asked for, so a file that is cut under us is an error and not a signal. Whatever breaks a rule
// is refused with Exit::bad_checkpoint and one sentence: file, rule, remedy.
#pragma once

#include "checkpoint/stored_type.hpp"
#include "core/host_tensor.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace flanmoe {

/// One entry of a header. Offsets are relative to the data, which starts behind the header.
struct TensorEntry {
    std::string name;
    StoredType type = StoredType::f32;
    std::vector<int64_t> shape;
    int64_t begin = 0, end = 0;

    int64_t elements() const;
    int64_t bytes() const { return end - begin; }
    std::string shape_text() const;  ///< "[8, 512]"
};

/// Stricter than the reference, which allows headers of 100 MB: what is above is either hostile or should have been sharded.
struct SafetensorsLimits {
    int64_t header_bytes = int64_t{16} << 20;
    int64_t entries = 1'000'000;
    int64_t name_bytes = 512;
};

class SafetensorsFile {
public:
    /// Opens and judges the header. Exit::missing_input if the file cannot be opened, Exit::bad_checkpoint for every broken rule.
    explicit SafetensorsFile(const std::filesystem::path& path, const SafetensorsLimits& limits = {});
    SafetensorsFile(SafetensorsFile&&) noexcept;
    SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
    ~SafetensorsFile();

    const std::filesystem::path& path() const { return path_; }
    const std::vector<TensorEntry>& entries() const { return entries_; }  ///< in the order of the data
    const std::map<std::string, std::string>& metadata() const { return metadata_; }
    const TensorEntry* find(std::string_view name) const;  ///< null if there is none
    const TensorEntry& at(std::string_view name) const;    ///< Exit::bad_checkpoint if there is none

    /// Raw bytes [offset, offset + count) of an entry.
    void read_bytes(const TensorEntry& entry, int64_t offset, void* into, int64_t count) const;
    std::string bytes(const TensorEntry& entry) const;
    /// Values into a tensor of the same shape and any type, converted; rows may be strided.
    void read_as(const TensorEntry& entry, const Tensor& into) const;
    /// A tensor of its own, in natural_type or as `type`. At most four dimensions.
    HostTensor load(const TensorEntry& entry) const;
    HostTensor load(const TensorEntry& entry, DType type) const;

private:
    std::filesystem::path path_;
    int descriptor_ = -1;
    int64_t file_bytes_ = 0, data_start_ = 0;
    std::vector<TensorEntry> entries_;
    std::unordered_map<std::string_view, size_t> by_name_;  // keys live in entries_
    std::map<std::string, std::string> metadata_;
};

/// Judges a header (the JSON text, `data_bytes` of data behind it) and returns its entries in the order of the data. `where` is the file, for errors.
std::vector<TensorEntry> parse_safetensors_header(std::string_view json, int64_t data_bytes, const std::string& where,
                                                  const SafetensorsLimits& limits, std::map<std::string, std::string>& metadata);

/// Collects views, or functions that make values, and writes them in one pass; the views must stay valid until write() returns.
class SafetensorsWriter {
public:
    explicit SafetensorsWriter(std::map<std::string, std::string> metadata = {{"format", "pt"}}) : metadata_(std::move(metadata)) {}
    void add(std::string name, const Tensor& values) { add(std::move(name), values, values.dtype); }
    /// Values of an engine that the host cannot read are fetched when their turn to be written comes.
    void add(std::string name, const Tensor& values, DType as, Engine& engine = host_engine());
    /// Values that are made (of this shape, in any type) when their turn to be written comes, and forgotten then: a model passes through memory tensor by tensor.
    void add(std::string name, const Shape& shape, DType as, std::function<HostTensor()> make);
    int64_t tensor_bytes() const;  ///< sum over the tensors, without the header
    /// Makes every value that is made, in the order in which write() does, and forgets it: ranks that give their parts of what another writes.
    void make_all() const;
    /// Writes the file, synced to disk. Exit::cannot_create or Exit::io on failure. Returns the XXH3-128 hash of the file as 32 hex digits.
    std::string write(const std::filesystem::path& path) const;

private:
    struct Item {
        std::string name;
        Shape shape;
        DType type;
        Tensor values;
        std::function<HostTensor()> make;  // in place of values
    };
    std::vector<const Item*> in_order() const;
    std::map<std::string, std::string> metadata_;
    std::vector<Item> items_;
};

/// read_as() into a compact tensor of any engine.
void read_into(const SafetensorsFile& file, const TensorEntry& entry, Engine& engine, const Tensor& into);
/// Every tensor of a file by name, in natural_type.
std::map<std::string, HostTensor> load_all(const std::filesystem::path& path);
/// Writes tensors as they are, atomically (temporary file, sync, rename).
void save_all(const std::filesystem::path& path, const std::map<std::string, HostTensor>& tensors);

}  // namespace flanmoe
