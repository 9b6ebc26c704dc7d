#include "checkpoint/manifest.hpp"

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/hashed_file.hpp"
#include "checkpoint/json_reader.hpp"
#include "core/file.hpp"

namespace flanmoe {

namespace {

namespace fs = std::filesystem;

constexpr int64_t format_version = 1;
constexpr const char* manifest_name = "manifest.json";
constexpr int64_t manifest_limit = int64_t{64} << 20;

const std::string no_hash(32, '0');

// The manifest's own hash is that of its text with zeros in place of the hash.
std::string own_hash(std::string text, const std::string& stated) {
    const size_t at = text.rfind(stated);
    if (stated.size() != no_hash.size() || at == std::string::npos) return "";
    return hash_bytes(text.replace(at, stated.size(), no_hash));
}

// A plain name, or one inside training/.
bool inside(std::string name) {
    if (name.starts_with("training/")) name = name.substr(9);
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

// A file of weights that the manifest does not know would be read in place of one that it does.
bool is_weights(const std::string& name) { return name.starts_with("model") && name.find(".safetensors") != std::string::npos; }

}  // namespace

int64_t write_manifest(const fs::path& directory, int64_t step, const FileHashes& hashes) {
    Json json;
    json["format"] = "flanmoe checkpoint";
    json["version"] = format_version;
    json["step"] = step;
    int64_t total = 0;
    for (const auto& [name, hash] : hashes) {
        const int64_t bytes = static_cast<int64_t>(fs::file_size(directory / name));
        total += bytes;
        json["files"][name] = {{"bytes", bytes}, {"xxh3_128", hash}};
    }
    json["manifest_xxh3_128"] = no_hash;
    std::string text = json.dump(2) + "\n";
    text.replace(text.rfind(no_hash), no_hash.size(), hash_bytes(text));
    write_hashed(directory / manifest_name, text);
    return total;
}

Manifest read_manifest(const fs::path& directory) {
    const fs::path path = directory / manifest_name;
    const std::string where = path.string();
    if (!fs::exists(path))
        fail(Exit::bad_checkpoint, "{} has no {}, so it was never completed; use another checkpoint", directory.string(), manifest_name);
    const std::string text = read_file(path, manifest_limit);
    const ParsedJson json = parse_json_object(text, where);
    const JsonReader reader(json, where);
    Manifest manifest;
    if (reader.text("format", "") != "flanmoe checkpoint") reader.refuse("format", "is not that of a checkpoint", "use another checkpoint");
    manifest.version = reader.integer("version", 1, int64_t{1} << 30);
    if (manifest.version > format_version)
        reader.refuse("version", fmt::format("is {}", manifest.version), fmt::format("this program reads up to {}: use a newer one", format_version));
    const std::string stated = reader.text("manifest_xxh3_128", "");
    if (stated.empty() || own_hash(text, stated) != stated)
        reader.refuse("manifest_xxh3_128", "is not the hash of the file: it has changed", "use another checkpoint");
    manifest.step = reader.integer("step", 0, int64_t{1} << 60);
    if (!reader.has("files")) reader.refuse("files", "is missing", "use another checkpoint");
    reader.object("files");
    for (const auto& [name, value] : reader.raw("files").items()) {
        if (!inside(name) || !value.is_object())
            reader.refuse("files", fmt::format("names {:?}, which is no file of a checkpoint", name), "use another checkpoint");
        const JsonReader file(value, where, name + ".");
        manifest.files[name] = {file.integer("bytes", 0, int64_t{1} << 60), file.text("xxh3_128", "")};
    }
    return manifest;
}

std::vector<std::string> verify_checkpoint(const fs::path& checkpoint, bool quick) {
    std::vector<std::string> problems;
    try {
        const Manifest manifest = read_manifest(checkpoint);
        for (const auto& [name, file] : manifest.files) {
            const fs::path path = checkpoint / name;
            std::error_code error;
            const uintmax_t bytes = fs::file_size(path, error);
            if (error)
                problems.push_back(fmt::format("{} cannot be read: {}", path.string(), error.message()));
            else if (static_cast<int64_t>(bytes) != file.bytes)
                problems.push_back(fmt::format("{} has {} bytes where the manifest says {}", path.string(), bytes, file.bytes));
            else if (!quick && hash_file(path) != file.hash)
                problems.push_back(fmt::format("{} does not have the hash of the manifest: its content has changed", path.string()));
        }
        for (const fs::directory_entry& entry : fs::directory_iterator(checkpoint)) {
            const std::string name = entry.path().filename().string();
            if (is_weights(name) && !manifest.files.count(name)) problems.push_back(fmt::format("{} is not in the manifest", entry.path().string()));
        }
    } catch (const Error& error) {
        problems.push_back(error.what());
    } catch (const fs::filesystem_error& error) {
        problems.push_back(error.what());
    }
    return problems;
}

}  // namespace flanmoe
