// flanmoe sweep: a grid of training runs, cell by cell, with a table that is always there.
//
// Every cell is a child process, `flanmoe train` with the words of this command and the cell's settings: whatever ends a cell, lack of memory included, ends only that cell,
// and a cell is the same run as one that is started by hand or by an array of batch jobs. Several processes may work at one sweep; each takes cells that no other holds.
#include "cli/commands.hpp"
#include "cli/config_arguments.hpp"
#include "cli/table.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/file_lock.hpp"
#include "core/log.hpp"
#include "data/strings.hpp"
#include "data/text_files.hpp"
#include "train/signals.hpp"
#include "train/sweep.hpp"

#include <CLI/CLI.hpp>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <memory>
#include <thread>

namespace flanmoe::cli {

namespace {

namespace fs = std::filesystem;

struct Options {
    ConfigArguments config;
    std::string run;
    std::vector<std::string> axes;
    int64_t cell = -1;
    double max_minutes = 0;
    bool extend = false, retry = false, list = false;
};

// Starts a program in a process group of its own, so that signals of the terminal come through us alone; its output is appended to a file. TERM reaches it if we die.
pid_t start(const std::vector<std::string>& words, const fs::path& log) {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    const int output = ::open(log.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0666), input = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (output < 0 || input < 0) fail(Exit::cannot_create, "cannot write {}: {}; check the folder and its permissions", log.string(), std::strerror(errno));
    const pid_t parent = ::getpid(), child = ::fork();
    if (child == 0) {
        ::setpgid(0, 0);
        ::prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (::getppid() != parent) ::_exit(static_cast<int>(Exit::preempted));
        // The signals of our Stop stay blocked: one that comes before the run has a Stop of its own waits for that.
        ::dup2(input, 0), ::dup2(output, 1), ::dup2(output, 2);
        ::execv("/proc/self/exe", arguments.data());
        ::_exit(127);
    }
    const int reason = errno;
    ::close(output), ::close(input);
    if (child < 0) fail(Exit::out_of_memory, "cannot start a process: {}", std::strerror(reason));
    return child;
}

// Its exit code, or 128 and its signal; a stop of ours is handed on once.
int wait_for(pid_t child, const Stop& stop) {
    bool told = false;
    for (;;) {
        int status = 0;
        const pid_t ended = ::waitpid(child, &status, WNOHANG);
        if (ended == child) return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        require(ended == 0 || errno == EINTR, "a child to wait for");
        if (stop.requested() && !told) told = ::kill(child, SIGTERM) == 0;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
}

// The last error sentence behind a place of a log.
std::string sentence_in(const fs::path& log, size_t begin, int code) {
    constexpr std::string_view mark = "flanmoe: ";
    const std::string text = read_file(log).substr(begin);
    std::string last;
    for (const std::string& line : split(text, "\n"))
        if (line.starts_with(mark)) last = line.substr(mark.size());
    if (!last.empty()) return last;
    return code > 128 ? fmt::format("ended by signal {} ({})", code - 128, ::strsignal(code - 128)) : fmt::format("ended without a word, see {}", log.string());
}

std::string table_of(const Sweep& sweep, const std::vector<CellResult>& results, const Config& base) {
    std::vector<std::pair<std::string, Align>> columns = {{"cell", Align::right}};
    for (const SweepAxis& axis : sweep.axes()) columns.emplace_back(axis.key, Align::right);
    columns.insert(columns.end(), {{"state", Align::left}, {base.eval.metric, Align::right}, {"best step", Align::right}, {"steps", Align::right}});
    if (!base.eval.test_split.empty()) columns.emplace_back(base.eval.test_split + " " + base.eval.metric, Align::right);
    columns.emplace_back("", Align::left);
    Table table(columns);
    const std::optional<size_t> best = best_cell(results, base);
    for (size_t c = 0; c < results.size(); ++c) {
        const CellResult& r = results[c];
        std::vector<std::string> cells = {std::to_string(c)};
        for (const auto& [key, value] : sweep.cells()[c].settings) cells.push_back(value);
        cells.insert(cells.end(), {state_name(r.state), four_places(r.best), r.best ? thousands(r.best_step) : "-", thousands(r.step)});
        if (!base.eval.test_split.empty()) cells.push_back(four_places(r.test));
        cells.push_back(best == c ? "best" : r.state == CellResult::State::failed ? r.message : "");
        table.add(cells);
    }
    return table.text();
}

class Command {
public:
    Command(const Options& options, Stop& stop) : options_(options), stop_(stop), base_(options.config.load()) {
        std::vector<SweepAxis> axes;
        for (const std::string& axis : options.axes) axes.push_back(parse_axis(axis, base_));
        sweep_ = std::make_unique<Sweep>(options.run, base_, axes, options.extend);
        if (options.cell >= static_cast<int64_t>(sweep_->cells().size()))
            fail(Exit::usage, "--cell {} is not among the {} cells of the sweep, which count from 0", options.cell, sweep_->cells().size());
    }

    void list() const {
        for (const SweepCell& cell : sweep_->cells()) {
            std::string line;
            for (const std::string& option : cell.options()) {
                if (option.find_first_of(" \t\n") != std::string::npos) fail(Exit::usage, "--list: '{}' holds a blank, which a line of options cannot; run that cell with --cell", option);
                line += (line.empty() ? "--set " : " --set ") + option;
            }
            fmt::print("{}\n", line);
        }
    }

    void run() {
        bool complete = true;
        for (size_t c = 0; c < sweep_->cells().size() && !stop_.requested(); ++c)
            if (asked(c)) complete &= run_cell(c);
        const std::vector<CellResult> results = write_table();
        fmt::print("{}", table_of(*sweep_, results, base_));
        std::fflush(stdout);
        if (!complete || stop_.requested()) {
            info("stopped{}; the same command goes on from here", stop_.requested() ? " by " + stop_.reason() : "");
            throw CLI::RuntimeError(static_cast<int>(Exit::preempted));
        }
        for (size_t c = 0; c < results.size(); ++c)  // a code of 0, of a damaged file, must not pass for success
            if (asked(c) && results[c].state == CellResult::State::failed) throw CLI::RuntimeError(results[c].code ? results[c].code : static_cast<int>(Exit::internal));
    }

private:
    bool asked(size_t cell) const { return options_.cell < 0 || static_cast<size_t>(options_.cell) == cell; }

    std::vector<std::string> words(size_t cell) const {
        std::vector<std::string> all = {"flanmoe", "train"};
        all.insert(all.end(), options_.config.files.begin(), options_.config.files.end());
        for (const std::string& setting : options_.config.settings) all.insert(all.end(), {"--set", setting});
        for (const std::string& setting : sweep_->cells()[cell].options()) all.insert(all.end(), {"--set", setting});
        if (!options_.config.device.empty()) all.insert(all.end(), {"--device", options_.config.device});
        all.insert(all.end(), {"--run", sweep_->run(cell).string()});
        return all;
    }

    // False if the cell stopped before it was done.
    bool run_cell(size_t cell) {
        FileLock own(sweep_->beside(cell, ".lock"));
        const std::string name = fmt::format("cell {} ({})", cell, joined(sweep_->cells()[cell].options(), " "));
        if (!own.try_lock()) {
            info("{} is run by another process", name);
            return true;
        }
        own.share();  // a run that outlives this process still holds its cell
        const CellResult before = read_result(*sweep_, cell, base_);
        if (before.state == CellResult::State::done) return true;
        if (before.state == CellResult::State::failed && !options_.retry) {
            info("{} failed before: {}; --retry tries it again", name, before.message);
            return true;
        }
        forget_failure(*sweep_, cell);
        const fs::path log = sweep_->beside(cell, ".log");
        info("{} of {} {}, see {}", name, sweep_->cells().size(), before.state == CellResult::State::begun ? "goes on" : "begins", log.string());
        const size_t begin = fs::exists(log) ? fs::file_size(log) : 0;
        const int code = wait_for(start(words(cell), log), stop_);
        if (code == static_cast<int>(Exit::preempted)) {
            write_table();
            return false;
        }
        if (code != 0) write_failure(*sweep_, cell, code, sentence_in(log, begin, code));
        else if (read_result(*sweep_, cell, base_).state != CellResult::State::done)
            write_failure(*sweep_, cell, static_cast<int>(Exit::internal), fmt::format("ended without an error before it was done, see {}", log.string()));
        const CellResult now = write_table()[cell];
        info("{}: {}", name, now.state == CellResult::State::failed ? now.message : fmt::format("{} {} at step {}{}", base_.eval.metric, four_places(now.best), now.best_step,
                                                                                                now.test ? fmt::format(", {} {:.4f}", base_.eval.test_split, *now.test) : ""));
        return true;
    }

    std::vector<CellResult> write_table() const {
        const auto lock = sweep_->hold();
        std::vector<CellResult> results;
        for (size_t c = 0; c < sweep_->cells().size(); ++c) results.push_back(read_result(*sweep_, c, base_));
        write_file_atomically(sweep_->folder() / "table.txt", table_of(*sweep_, results, base_));
        write_file_atomically(sweep_->folder() / "table.json", sweep_json(*sweep_, results, base_));
        write_file_atomically(sweep_->folder() / "table.csv", sweep_csv(*sweep_, results, base_));
        return results;
    }

    const Options& options_;
    Stop& stop_;
    Config base_;
    std::unique_ptr<Sweep> sweep_;
};

}  // namespace

void add_sweep(CLI::App& program) {
    auto options = std::make_shared<Options>();
    CLI::App* command = program.add_subcommand("sweep", "Train a grid of runs, one after another, into one table; goes on by itself where it stopped");
    options->config.add_to(command);
    options->config.add_device_to(command);
    command->add_option("--run", options->run, "folder of the sweep: a run directory a cell, tables")->required()->type_name("DIR");
    command->add_option("--axis", options->axes, "an option with its values: key=value,value (repeatable; the last one changes fastest)")->required()->type_name("KEY=VALUES")->expected(1)
        ->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    command->add_option("--cell", options->cell, "only this cell, for arrays of jobs; cells count from 0")->check(CLI::Range(int64_t{0}, int64_t{1000000}));
    command->add_option("--max-minutes", options->max_minutes, "stop after so many minutes, saved (exit code 75)")->check(CLI::Range(0.0, 1e9));
    command->add_flag("--extend", options->extend, "add the cells of this grid to a sweep that has others");
    command->add_flag("--retry", options->retry, "try cells again that failed");
    command->add_flag("--list", options->list, "print the options of every cell, a line each, as SWEEP of run/slurm/train.sbatch takes them, and train nothing");
    command->footer("Example (the grid of ST-MoE's finetuning study; 128 rows of 512 tokens are 65k):\n"
                    "  flanmoe sweep configs/model/switch-base.toml configs/recipe/finetune.toml configs/recipe/finetune/condaqa.toml --run runs/sweep \\\n"
                    "    --set train.start_from=runs/pretrain --set data.tokenizer=vocabulary --set data.folder=data --set eval.test_split=test \\\n"
                    "    --axis optimizer.learning_rate=1e-3,5e-4,1e-4 --axis data.batch_rows=2048,512,128 --axis train.reset_optimizer=false,true\n\n"
                    "The same command goes on; what is done is not run again, and a failed cell does not end the others. Exit code: 0 if no cell has failed, that of the first failed cell otherwise\n"
                    "(128 and the signal's number if a signal ended it), 75 if the sweep was stopped before all had their turn. Several processes may work at one sweep.");
    command->callback([options] {
        Stop stop(options->max_minutes);
        Command sweep(*options, stop);
        options->list ? sweep.list() : sweep.run();
    });
}

}  // namespace flanmoe::cli
