// Runs the program: parsing, nearest names for what does not exist, and exceptions turned into one sentence and an exit code.
#include "cli/commands.hpp"
#include "core/error.hpp"
#include "core/nearest.hpp"

#include <CLI/CLI.hpp>

#include <filesystem>
#include <new>

namespace flanmoe::cli {

namespace {

std::string full_name(const CLI::App& app) { return app.get_parent() ? full_name(*app.get_parent()) + " " + app.get_name() : "flanmoe"; }

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

std::string join(const std::vector<std::string>& names) {
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
    return list;
}

// One sentence for a command line that CLI11 refused.
std::string explain(CLI::App& program, const CLI::ParseError& error) {
    const CLI::App& app = *innermost(&program);
    const std::string name = full_name(app);
    const std::vector<std::string> commands = command_names(app);
    for (const std::string& rest : app.remaining()) {
        if (rest.size() > 1 && rest[0] == '-') {
            const std::string flag = rest.substr(0, rest.find('='));
            return fmt::format("unknown option {} of {}{}; see {} --help", flag, name, suggestion(flag, flag_names(app)), name);
        }
        if (!commands.empty()) return fmt::format("{} has no command {}{}; it has {}", name, rest, suggestion(rest, commands), join(commands));
        return fmt::format("{} does not take the argument {}; see {} --help", name, rest, name);
    }
    if (!commands.empty() && dynamic_cast<const CLI::RequiredError*>(&error)) return fmt::format("{} needs a command: {}", name, join(commands));
    return fmt::format("{}: {}; see {} --help", name, error.what(), name);
}

int report(Exit code, const std::string& sentence) {
    fmt::print(stderr, "flanmoe: {}\n", sentence);
    return static_cast<int>(code);
}

}  // namespace

int run(CLI::App& program, int argc, char** argv) {
    program.require_subcommand(1);
    try {
        program.parse(argc, argv);
        return static_cast<int>(Exit::done);
    } catch (const CLI::RuntimeError& error) {
        return error.get_exit_code();
    } catch (const CLI::Success& success) {  // --help and --version
        return program.exit(success);
    } catch (const CLI::ParseError& error) {
        return report(Exit::usage, explain(program, error));
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
