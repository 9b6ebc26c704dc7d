// The header of a safetensors file, judged while it is parsed.
//
// A SAX handler on nlohmann's parser (which does not recurse) accepts exactly the grammar of the format, so that nothing is allocated for what is
// refused: duplicate keys, numbers that are not plain integers and nesting are seen as they come. Then the entries are sorted by offset and must tile
// the data without holes.
#include "checkpoint/safetensors.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>
#include <optional>
#include <unordered_set>

namespace flanmoe {

namespace {

constexpr const char* remedy = "the file is damaged or hostile: get it again from its source";
constexpr size_t max_dimensions = 16;

class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
public:
    HeaderHandler(const std::string& where, const SafetensorsLimits& limits, std::map<std::string, std::string>& metadata)
        : where_(where), limits_(limits), metadata_(metadata) {}

    std::vector<TensorEntry> entries;

    bool null() override { refuse("null"); }
    bool boolean(bool) override { refuse("true or false"); }
    bool number_float(number_float_t, const string_t& text) override { refuse("the number " + text + ", which is not an integer below 2^63"); }
    bool number_integer(number_integer_t) override { refuse("a negative number"); }
    bool binary(binary_t&) override { refuse("binary data"); }

    bool number_unsigned(number_unsigned_t value) override {
        if (level_ != Level::shape && level_ != Level::offsets) refuse("a number");
        if (value > static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max())) refuse("a number of 2^63 or more");
        std::vector<int64_t>& list = level_ == Level::shape ? current_.shape : offsets_;
        list.push_back(static_cast<int64_t>(value));
        if (list.size() > (level_ == Level::shape ? max_dimensions : 2)) refuse("too long a list of numbers");
        return true;
    }

    bool string(string_t& text) override {
        if (level_ == Level::metadata) {
            metadata_[key_] = text;
        } else if (level_ == Level::entry && key_ == "dtype") {
            const std::optional<StoredType> type = stored_type(text);
            if (!type) broken(fmt::format("tensor {:?} has the unknown dtype {:?}", current_.name, text));
            current_.type = *type;
        } else {
            refuse("a string");
        }
        return true;
    }

    bool start_object(std::size_t) override {
        if (level_ == Level::outside) {
            level_ = Level::top;
        } else if (level_ == Level::top && key_ == "__metadata__") {
            level_ = Level::metadata;
        } else if (level_ == Level::top) {
            level_ = Level::entry;
            current_ = TensorEntry();
            current_.name = key_;
            offsets_.clear();
        } else {
            refuse("a nested object");
        }
        keys_.clear();
        return true;
    }

    bool key(string_t& text) override {
        if (level_ == Level::top) {
            if (text.size() > static_cast<size_t>(limits_.name_bytes))
                broken(fmt::format("a tensor name has more than {} bytes", limits_.name_bytes));
            if (!names_.insert(text).second) broken(fmt::format("the key {:?} appears twice", text));
            if (static_cast<int64_t>(names_.size()) > limits_.entries + 1) broken(fmt::format("there are more than {} tensors", limits_.entries));
        } else {
            if (level_ == Level::entry && text != "dtype" && text != "shape" && text != "data_offsets")
                broken(fmt::format("tensor {:?} has the unknown field {:?}", current_.name, text));
            if (!keys_.insert(text).second)
                broken(fmt::format("the key {:?} appears twice in {:?}", text, level_ == Level::entry ? current_.name : "__metadata__"));
        }
        key_ = text;
        return true;
    }

    bool end_object() override {
        if (level_ == Level::entry) finish_entry();
        level_ = level_ == Level::top ? Level::outside : Level::top;
        return true;
    }

    bool start_array(std::size_t) override {
        if (level_ != Level::entry || key_ == "dtype") refuse("an array");
        level_ = key_ == "shape" ? Level::shape : Level::offsets;
        return true;
    }

    bool end_array() override {
        if (level_ == Level::offsets && offsets_.size() != 2) broken(fmt::format("data_offsets of tensor {:?} are not two numbers", current_.name));
        level_ = Level::entry;
        return true;
    }

    bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
        broken(fmt::format("the header is not JSON at byte {}", position + 7));
    }

private:
    enum class Level { outside, top, metadata, entry, shape, offsets };

    [[noreturn]] void broken(const std::string& rule) const {
        fail(Exit::bad_checkpoint, "{}: {}; {}", where_, rule.substr(0, 1000), remedy);  // a hostile name may be long
    }
    [[noreturn]] void refuse(const std::string& what) const {
        if (level_ == Level::outside) broken("the header is " + what + " where an object is expected");
        if (level_ == Level::top) broken(fmt::format("{:?} is {} where an object is expected", key_, what));
        if (level_ == Level::metadata) broken(fmt::format("the metadata {:?} is {} where a string is expected", key_, what));
        broken(fmt::format("the field {:?} of tensor {:?} holds {}", key_, current_.name, what));
    }

    void finish_entry() {
        if (keys_.size() != 3) broken(fmt::format("tensor {:?} lacks one of dtype, shape and data_offsets", current_.name));
        current_.begin = offsets_[0], current_.end = offsets_[1];
        if (current_.end < current_.begin)
            broken(fmt::format("tensor {:?} ends at {} before it begins at {}", current_.name, current_.end, current_.begin));
        int64_t bits = bits_of(current_.type);
        bool overflow = false;
        // The shape is multiplied before the zero test of any dimension, as in the reference: an overflow is refused even if a later size is 0.
        int64_t elements = 1;
        for (int64_t size : current_.shape) overflow |= __builtin_mul_overflow(elements, size, &elements);
        overflow |= __builtin_mul_overflow(bits, elements, &bits);
        if (overflow) broken(fmt::format("the size of tensor {:?} with shape {} overflows", current_.name, current_.shape_text()));
        if (bits % 8) broken(fmt::format("tensor {:?} does not fill whole bytes", current_.name));
        if (bits / 8 != current_.bytes())
            broken(fmt::format("tensor {:?} of {} {} needs {} bytes but its data_offsets span {}", current_.name, name_of(current_.type),
                               current_.shape_text(), bits / 8, current_.bytes()));
        entries.push_back(std::move(current_));
        current_ = TensorEntry();
    }

    const std::string& where_;
    const SafetensorsLimits& limits_;
    std::map<std::string, std::string>& metadata_;
    Level level_ = Level::outside;
    std::string key_;
    TensorEntry current_;
    std::vector<int64_t> offsets_;
    std::unordered_set<std::string> names_, keys_;
};

}  // namespace

int64_t TensorEntry::elements() const {
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return n;
}

std::string TensorEntry::shape_text() const {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

std::vector<TensorEntry> parse_safetensors_header(std::string_view json, int64_t data_bytes, const std::string& where,
                                                  const SafetensorsLimits& limits, std::map<std::string, std::string>& metadata) {
    const auto broken = [&](const std::string& rule) { fail(Exit::bad_checkpoint, "{}: {}; {}", where, rule, remedy); };
    const size_t first = json.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos || json[first] != '{') broken("the header does not start with an object");  // a byte order mark included
    if (json.find('\0') != std::string_view::npos) broken("the header holds a zero byte");                          // the parser would stop there
    HeaderHandler handler(where, limits, metadata);
    nlohmann::json::sax_parse(json.begin(), json.end(), &handler);

    std::vector<TensorEntry>& entries = handler.entries;
    std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
        return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    int64_t end = 0;
    for (const TensorEntry& entry : entries) {
        if (entry.begin != end)
            broken(fmt::format("tensor {:?} begins at byte {} of the data where {} is expected ({})", entry.name, entry.begin, end,
                               entry.begin > end ? "a hole" : "an overlap"));
        end = entry.end;
    }
    if (end != data_bytes)
        broken(fmt::format("the tensors take {} bytes but the file holds {} behind its header ({})", end, data_bytes,
                           end > data_bytes ? "it is truncated" : "something is appended"));
    return std::move(entries);
}

}  // namespace flanmoe
