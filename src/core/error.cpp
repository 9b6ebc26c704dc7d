#include "core/error.hpp"

#include <filesystem>
#include <new>
#include <system_error>

namespace flanmoe {

Error error_of(const std::exception_ptr& exception) {
    try {
        std::rethrow_exception(exception);
    } catch (const Error& error) {
        return error;
    } catch (const std::bad_alloc&) {
        return {Exit::out_of_memory, "out of memory; use a smaller batch or model, or a machine with more memory"};
    } catch (const std::filesystem::filesystem_error& error) {
        return {Exit::io, error.what()};
    } catch (const std::system_error& error) {  // of the system: output that cannot be written, no room for another thread
        return {Exit::io, fmt::format("{}; check free space, what the output goes to, and the limits of processes", error.what())};
    } catch (const std::exception& error) {
        return {Exit::internal, fmt::format("internal error: {}; please report this", error.what())};
    } catch (...) {
        return {Exit::internal, "internal error: something unknown was thrown; please report this"};
    }
}

}  // namespace flanmoe
