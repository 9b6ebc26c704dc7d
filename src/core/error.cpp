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
    } catch (const std::system_error& error) {  // of files and streams, such as output that cannot be written
        return {Exit::io, fmt::format("{}; free some space, or check what the output goes to", error.what())};
    } catch (const std::exception& error) {
        return {Exit::internal, fmt::format("internal error: {}; please report this", error.what())};
    } catch (...) {
        return {Exit::internal, "internal error: something unknown was thrown; please report this"};
    }
}

}  // namespace flanmoe
