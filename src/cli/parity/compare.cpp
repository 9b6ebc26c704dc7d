// Comparison of what was computed with what a case expects. Entries belong to error classes by their name; every class has its measure:
//   logits, router, combine, parameter, state, and loss curves:   max |difference| / max |expected|  (undivided where that is 0)
//   scalar losses:                                                |difference| / max(|expected|, 1e-6)
//   gradient:                                                     |difference|_2 / max(|expected|_2, 1e-4 x the largest |gradient|_2 of the case)
#include "cli/parity/parity.hpp"

#include <cmath>
#include <set>

namespace flanmoe::cli {

namespace {

struct Difference {
    double error = 0;
    int64_t index = 0;  ///< of the element that differs most
    double got = 0, expected = 0;
};

/// Error class of an entry, by its name; empty if no class has such a name.
std::string class_of(const std::string& name) {
    static const std::set<std::string> losses = {"loss", "gradient_norm", "cross_entropy", "output_z", "balance", "z"};
    if (losses.contains(name)) return "loss";
    if (name == "logits" || name == "combine") return name;
    for (const char* prefix : {"gradient", "parameter", "state"})
        if (name.starts_with(std::string(prefix) + ".")) return prefix;
    if (name.starts_with("router.")) {
        if (name.ends_with(".logits") || name.ends_with(".combine")) return "router";
        if (name.ends_with(".balance") || name.ends_with(".z")) return "loss";
    }
    return "";
}

double norm(const double* x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
    return std::sqrt(sum);
}

/// `floor`: least norm of a gradient that counts as its size.
Difference measure(const std::string& error_class, const HostTensor& got, const HostTensor& expected, double floor) {
    const int64_t n = expected.shape.elements();
    const double *g = got.as<double>(), *e = expected.as<double>();
    Difference worst;
    double largest = 0, difference = -1, squares = 0;
    for (int64_t i = 0; i < n; ++i) {
        const double d = std::abs(g[i] - e[i]);
        squares += d * d, largest = std::max(largest, std::abs(e[i]));
        if (d > difference || std::isnan(d)) {
            difference = d, worst.index = i, worst.got = g[i], worst.expected = e[i];
            if (std::isnan(d)) break;
        }
    }
    difference = std::isnan(difference) ? difference : std::max(difference, 0.0);
    if (error_class == "gradient") {
        const double size = std::max(norm(e, n), floor), total = std::sqrt(squares);
        worst.error = size > 0 ? total / size : total;
    } else if (error_class == "loss" && expected.shape.rank == 0) {
        worst.error = difference / std::max(largest, 1e-6);
    } else {
        worst.error = largest > 0 ? difference / largest : difference;
    }
    return worst;
}

std::string position(const Shape& shape, int64_t index) {
    if (shape.rank == 0) return "";
    std::string text;
    for (int d = shape.rank - 1; d >= 0; --d) {
        text = std::to_string(index % shape[d]) + (text.empty() ? "" : ", ") + text;
        index /= shape[d];
    }
    return "[" + text + "]";
}

HostTensor as_double(const HostTensor& tensor) {
    HostTensor copy(DType::f64, tensor.shape);
    require(convert_values(tensor.memory.get(), stored_type(tensor.dtype), copy.memory.get(), DType::f64, tensor.shape.elements()), "a floating result");
    return copy;
}

void add(std::string& list, const std::string& item) { list += (list.empty() ? "" : "; ") + item; }

double tolerance_of(const ParityCase& given, const nlohmann::json& tolerances, const std::string& error_class, const std::string& entry) {
    if (error_class.empty()) fail(Exit::bad_data, "{}: the entry {} belongs to no error class", given.expected->path().string(), entry);
    if (!tolerances.is_object() || !tolerances.contains(error_class) || !tolerances[error_class].is_number())
        given.malformed(fmt::format("\"tolerance\" for {} names no number for {}, the class of {}", name_of(given.dtype), error_class, entry));
    return tolerances[error_class].get<double>();
}

}  // namespace

Judgement compare_tensors(const ParityCase& given, const Computed& computed, const nlohmann::json& tolerances) {
    double largest_gradient = 0;
    for (const TensorEntry& entry : given.expected->entries()) {
        if (class_of(entry.name) != "gradient") continue;
        const HostTensor values = given.expected->load(entry, DType::f64);
        largest_gradient = std::max(largest_gradient, norm(values.as<double>(), values.shape.elements()));
    }
    struct Class {
        double error = -1, tolerance = 0;
    };
    std::map<std::string, Class> classes;
    std::string problems, worst;
    double worst_share = -1;
    for (const TensorEntry& entry : given.expected->entries()) {
        const std::string error_class = class_of(entry.name);
        const double tolerance = tolerance_of(given, tolerances, error_class, entry.name);
        const auto found = computed.tensors.find(entry.name);
        if (found == computed.tensors.end()) {
            add(problems, entry.name + " was not computed");
            continue;
        }
        const HostTensor expected = given.expected->load(entry, DType::f64), got = as_double(found->second);
        if (!(got.shape == expected.shape)) {
            add(problems, fmt::format("{} has shape {}, expected {}", entry.name, got.shape.text(), expected.shape.text()));
            continue;
        }
        const Difference e = measure(error_class, got, expected, 1e-4 * largest_gradient);
        const std::string where = fmt::format("{}{}: {:.9g}, expected {:.9g}", entry.name, position(expected.shape, e.index), e.got, e.expected);
        if (std::isnan(e.error)) {
            add(problems, "not a number: " + where);
            continue;
        }
        Class& c = classes[error_class];
        c.error = std::max(c.error, e.error), c.tolerance = tolerance;
        const double share = tolerance > 0 ? e.error / tolerance : (e.error > 0 ? INFINITY : 0);
        if (share > worst_share) worst_share = share, worst = where;
    }
    for (const auto& [name, values] : computed.tensors)
        if (!given.expected->find(name)) add(problems, name + " is not expected");

    Judgement result;
    for (const auto& [name, c] : classes) add(result.details, fmt::format("{} {:.2g} of {:.1g}", name, c.error, c.tolerance));
    if (!worst.empty()) add(result.details, "worst " + worst);
    if (!problems.empty()) add(result.details, problems);
    if (classes.empty() && problems.empty()) fail(Exit::bad_data, "{} expects nothing; record the case again", given.expected->path().string());
    if (worst_share > 1 || !problems.empty()) result.verdict = Verdict::out_of_tolerance;
    return result;
}

namespace {

struct FieldComparison {
    double tolerance, largest = 0;
    int64_t values = 0, wrong = 0;
    std::string worst, first_wrong;

    void mismatch(const std::string& what) {
        ++wrong;
        if (first_wrong.empty()) first_wrong = what;
    }
    void compare(const std::string& where, const nlohmann::json& got, const nlohmann::json& expected) {
        if (got.is_number() && expected.is_number()) {
            ++values;
            const double g = got.get<double>(), e = expected.get<double>(), error = std::abs(g - e);
            const std::string text = fmt::format("{}: {}, expected {}", where, got.dump(), expected.dump());
            if (error > largest) largest = error, worst = text;
            if (!(error <= tolerance)) mismatch(text);
        } else if (got.is_array() && expected.is_array()) {
            if (got.size() != expected.size()) mismatch(fmt::format("{} has {} entries, expected {}", where, got.size(), expected.size()));
            for (size_t i = 0; i < std::min(got.size(), expected.size()); ++i) compare(fmt::format("{}[{}]", where, i), got[i], expected[i]);
        } else if (got.is_object() && expected.is_object()) {
            for (const auto& [key, value] : expected.items()) {
                if (got.contains(key)) compare(where.empty() ? key : where + "." + key, got[key], value);
                else mismatch(fmt::format("{}.{} was not computed", where, key));
            }
            for (const auto& [key, value] : got.items())
                if (!expected.contains(key)) mismatch(fmt::format("{}.{} is not expected", where, key));
        } else {
            ++values;
            if (got != expected) mismatch(fmt::format("{}: {}, expected {}", where, got.dump(), expected.dump()));
        }
    }
};

}  // namespace

Judgement compare_fields(const ParityCase& given, const Computed& computed, double tolerance) {
    FieldComparison comparison{tolerance};
    for (const auto& [field, value] : computed.fields.items()) {
        if (!given.json.contains(field)) given.malformed(fmt::format("\"{}\" is missing", field));
        comparison.compare(field, value, given.json[field]);
    }
    Judgement result;
    if (comparison.values == 0) given.malformed("there is nothing to compare");
    result.details = tolerance > 0 ? fmt::format("{} values, {:.2g} of {:.1g}", comparison.values, comparison.largest, tolerance)
                                   : fmt::format("{} values, {} wrong", comparison.values, comparison.wrong);
    if (tolerance > 0 && !comparison.worst.empty()) add(result.details, "worst " + comparison.worst);
    if (comparison.wrong > 0) {
        result.verdict = Verdict::out_of_tolerance;
        add(result.details, "first " + comparison.first_wrong);
    }
    return result;
}

}  // namespace flanmoe::cli
