// Runs the program: parsing, nearest names for what does not exist, and exceptions turned into one sentence and an exit code.
#include "cli/commands.hpp"
#include "cli/ranks.hpp"
#include "comm/agreement.hpp"
#include "comm/mpi.hpp"
#include "core/error.hpp"
#include "core/nearest.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <optional>
#include <set>
#include <thread>

namespace flanmoe::cli {

namespace {

// "data shard"; empty for the program itself, whose name begins every message.
std::string path_of(const CLI::App& app) {
    if (!app.get_parent()) return "";
    const std::string above = path_of(*app.get_parent());
    return above + (above.empty() ? "" : " ") + app.get_name();
}

// The innermost subcommand that the command line reached.
CLI::App* innermost(CLI::App* app) {
    for (;;) {
        const std::vector<CLI::App*> chosen = app->get_subcommands();
        if (chosen.empty()) return app;
        app = chosen.back();
    }
}

std::vector<std::string> command_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
    return names;
}

std::vector<std::string> flag_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::Option* option : app.get_options())
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    return names;
}

// One sentence for a command line that CLI11 refused.
std::string explain(CLI::App& program, const CLI::ParseError& error) {
    const CLI::App& app = *innermost(&program);
    const std::string path = path_of(app), help = fmt::format("see flanmoe {}{}--help", path, path.empty() ? "" : " ");
    const std::string subject = path.empty() ? "" : path + ": ";
    const std::vector<std::string> commands = command_names(app);
    for (const std::string& rest : app.remaining()) {
        if (rest.size() > 1 && rest[0] == '-') {
            const std::string flag = rest.substr(0, rest.find('='));
            return fmt::format("{}unknown option {}{}; {}", subject, flag, suggestion(flag, flag_names(app)), help);
        }
        if (!commands.empty()) return fmt::format("{}unknown command {}{}; there are {}", subject, rest, suggestion(rest, commands), fmt::join(commands, ", "));
        return fmt::format("{}unexpected argument {}; {}", subject, rest, help);
    }
    if (!commands.empty() && dynamic_cast<const CLI::RequiredError*>(&error)) return fmt::format("{}a command is missing; there are {}", subject, fmt::join(commands, ", "));
    return fmt::format("{}{}; {}", subject, error.what(), help);
}

int report(Exit code, std::string sentence) {
    std::replace(sentence.begin(), sentence.end(), '\n', ' ');  // one line, whatever a library put into its message
    fmt::print(stderr, "flanmoe: {}\n", sentence);
    return static_cast<int>(code);
}

// What every rank of a launcher finds before they know of each other, as what is wrong with the command line: one says it. A launcher ends that one as soon as
// another has gone with an error, so the others give it time.
int report_once(Exit code, const std::string& sentence) {
    const std::optional<Launch> started = launch();
    if (!started || started->rank == 0) return report(code, sentence);
    std::this_thread::sleep_for(std::chrono::seconds(1));
    return static_cast<int>(code);
}

// Commands that would do the same work once on every rank.
void keep_to_one_rank(CLI::App& program) {
    const std::set<std::string> parallel = {"train", "eval", "generate", "bench", "parity"};
    for (CLI::App* command : program.get_subcommands({})) {
        const std::string name = command->get_name();
        if (!parallel.contains(name)) command->preparse_callback([=](size_t) { refuse_ranks(name); });
    }
}

}  // namespace

// What a command prints is its result, but for those that fill a folder and may go on when nobody reads along.
void check_output(const CLI::App& program) {
    const std::vector<CLI::App*> chosen = program.get_subcommands();
    const std::string name = chosen.empty() ? "" : chosen[0]->get_name();
    if (name == "train" || name == "sweep") return;
    const bool failed = std::fflush(stdout) != 0;
    if (failed || std::ferror(stdout)) fail(Exit::io, "cannot write the output{}; what was printed is not whole", failed ? fmt::format(": {}", std::strerror(errno)) : "");
}

int run(CLI::App& program, int argc, char** argv) {
    program.require_subcommand(1);
    keep_to_one_rank(program);
    try {
        program.parse(argc, argv);
        check_output(program);
        return static_cast<int>(Exit::done);
    } catch (const CLI::RuntimeError& error) {
        return error.get_exit_code();
    } catch (const CLI::Success& success) {  // --help and --version
        return program.exit(success);
    } catch (const CLI::ParseError& error) {
        return report_once(Exit::usage, explain(program, error));
    } catch (const SharedError& error) {
        return error.said ? static_cast<int>(error.code) : report_once(error.code, error.what());
    } catch (...) {
        const Error error = error_of(std::current_exception());
        return report(error.code, error.what());
    }
}

}  // namespace flanmoe::cli
