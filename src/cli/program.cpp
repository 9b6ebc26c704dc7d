// Runs the program: parsing, nearest names for what does not exist, and exceptions turned into one sentence and an exit code.
#include "cli/commands.hpp"
#include "comm/agreement.hpp"
#include "comm/mpi.hpp"
#include "core/error.hpp"
#include "core/nearest.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <new>
#include <optional>

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

// Under a launcher every rank sees the same command line; one says what is wrong with it.
bool speaks() {
    const std::optional<Launch> started = launch();
    return !started || started->rank == 0;
}

int report(Exit code, std::string sentence) {
    std::replace(sentence.begin(), sentence.end(), '\n', ' ');  // one line, whatever a library put into its message
    fmt::print(stderr, "flanmoe: {}\n", sentence);
    return static_cast<int>(code);
}

}  // namespace

// Commands that would do the same work once on every rank.
void refuse_ranks(CLI::App& program) {
    const std::optional<Launch> started = launch();
    if (!started || started->ranks == 1) return;
    for (CLI::App* command : program.get_subcommands({})) {
        const std::string name = command->get_name();
        if (name == "train" || name == "parity") continue;
        command->preparse_callback([=](size_t) { throw SharedError(Exit::usage, fmt::format("{} runs on one rank, but {} were started; give the command without a launcher", name, started->ranks)); });
    }
}

int run(CLI::App& program, int argc, char** argv) {
    program.require_subcommand(1);
    refuse_ranks(program);
    try {
        program.parse(argc, argv);
        return static_cast<int>(Exit::done);
    } catch (const CLI::RuntimeError& error) {
        return error.get_exit_code();
    } catch (const CLI::Success& success) {  // --help and --version
        return program.exit(success);
    } catch (const CLI::ParseError& error) {
        return speaks() ? report(Exit::usage, explain(program, error)) : static_cast<int>(Exit::usage);
    } catch (const SharedError& error) {
        return speaks() ? report(error.code, error.what()) : static_cast<int>(error.code);
    } catch (const Error& error) {
        return report(error.code, error.what());
    } catch (const std::bad_alloc&) {
        return report(Exit::out_of_memory, "out of memory; use a smaller batch or model, or a machine with more memory");
    } catch (const std::filesystem::filesystem_error& error) {
        return report(Exit::io, error.what());
    } catch (const std::exception& error) {
        return report(Exit::internal, fmt::format("internal error: {}; please report this", error.what()));
    }
}

}  // namespace flanmoe::cli
