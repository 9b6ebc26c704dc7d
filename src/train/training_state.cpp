#include "train/training_state.hpp"

#include "core/file.hpp"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <cmath>

namespace flanmoe {

namespace {

// JSON has no infinities: none is written as null.
nlohmann::json number(double x) { return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(x > 0 ? "inf" : "-inf"); }
double number(const nlohmann::json& j) { return j.is_string() ? (j.get<std::string>() == "inf" ? INFINITY : -INFINITY) : j.get<double>(); }

}  // namespace

std::string RunState::to_json() const {
    const nlohmann::json j = {
        {"step", step},
        {"tokens_seen", tokens},
        {"earlier_updates", earlier_updates},
        {"data", nlohmann::json::parse(loader)},
        {"best", number(best)},
        {"best_step", best_step},
        {"validations_without_improvement", validations_without_improvement},
        {"watch",
         {{"mean_loss", watch.mean_loss}, {"applied", watch.applied}, {"skipped", watch.skipped}, {"skipped_in_row", watch.skipped_in_row}, {"rollbacks", watch.rollbacks}}},
    };
    return j.dump(2);
}

RunState RunState::from_json(const std::string& text, const std::string& where) {
    try {
        const nlohmann::json j = nlohmann::json::parse(text);
        RunState s;
        s.step = j.at("step").get<int64_t>();
        s.tokens = j.at("tokens_seen").get<int64_t>();
        s.earlier_updates = j.value("earlier_updates", int64_t{0});  // states of the first version have none
        s.loader = j.at("data").dump();
        s.best = number(j.at("best"));
        s.best_step = j.at("best_step").get<int64_t>();
        s.validations_without_improvement = j.at("validations_without_improvement").get<int64_t>();
        const nlohmann::json& w = j.at("watch");
        s.watch = {w.at("mean_loss").get<double>(), w.at("applied").get<int64_t>(), w.at("skipped").get<int64_t>(), w.at("skipped_in_row").get<int64_t>(), w.at("rollbacks").get<int64_t>()};
        return s;
    } catch (const nlohmann::json::exception& e) {
        fail(Exit::bad_checkpoint, "{}: training/state.json is not a training state ({}); remove this checkpoint to resume from the one before", where, e.what());
    }
}

ExtraFiles files_of(const Tokenizer& tokenizer) {
    const std::filesystem::path folder = std::filesystem::temp_directory_path() / fmt::format("flanmoe-tokenizer-{}", ::getpid());
    std::filesystem::create_directories(folder);
    tokenizer.save_tokenizer_files(folder);
    ExtraFiles files;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) files[entry.path().filename().string()] = read_file(entry.path());
    std::filesystem::remove_all(folder);
    return files;
}

}  // namespace flanmoe
