// XML through pugixml: every element of one name is a record; its attributes and children, by name, are its fields.
#include "core/error.hpp"
#include "data/readers/fields.hpp"
#include "data/readers/layouts.hpp"

#include <pugixml.hpp>

#include <algorithm>

namespace flanmoe {

namespace {

// All text of an element, whose pieces comments may divide.
std::string text_of(const pugi::xml_node& element) {
    std::string text;
    for (const pugi::xml_node& piece : element.children()) {
        if (piece.type() == pugi::node_element) throw RecordProblem{fmt::format("has an element <{}> with an element <{}> inside, not a text", element.name(), piece.name())};
        text += piece.value();
    }
    return trimmed(text);
}

DataValue record_of(const pugi::xml_node& node) {
    DataValue record{DataValue::Object{}};
    const auto set = [&](const char* name, const std::string& text) {
        if (record.find(name)) throw RecordProblem{fmt::format("has '{}' twice", name)};
        record.set(name, text);
    };
    for (const pugi::xml_attribute& attribute : node.attributes()) set(attribute.name(), attribute.value());
    for (const pugi::xml_node& child : node.children())
        if (child.type() == pugi::node_element) set(child.name(), text_of(child));
    return record;
}

}  // namespace

void read_xml(const Reader& reader, const std::filesystem::path& path, const ReadOptions& options, RawSink& sink) {
    const std::string text = read_text(path, options.encoding);
    pugi::xml_document document;
    const pugi::xml_parse_result parsed = document.load_buffer(text.data(), text.size(), pugi::parse_default, pugi::encoding_utf8);
    if (!parsed) {
        const auto place = std::min<size_t>(static_cast<size_t>(parsed.offset), text.size());
        fail(Exit::bad_data, "{}:{} is not valid XML ({}); repair the file, or download it again", path.string(),
             1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(place), '\n'), parsed.description());
    }
    const SourceFile file{path, {}};
    int64_t number = 0;
    struct Walker : pugi::xml_tree_walker {
        std::function<void(pugi::xml_node&)> visit;
        bool for_each(pugi::xml_node& node) override {
            visit(node);
            return true;
        }
    } walker;
    walker.visit = [&](pugi::xml_node& node) {
        if (node.type() != pugi::node_element || reader.records != node.name()) return;
        ++number;
        try {
            sink.take(record_of(node), file, number, false);
        } catch (const RecordProblem& problem) {
            sink.malformed(file, number, false, problem.what);
        }
    };
    document.traverse(walker);
    if (number == 0) fail(Exit::bad_data, "{} has no element <{}>; is it a file of the {} format?", path.string(), reader.records, reader.name);
}

}  // namespace flanmoe
