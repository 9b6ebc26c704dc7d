#include "core/error.hpp"

#include <filesystem>
#include <new>

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
    } catch (const std::exception& error) {
        return {Exit::internal, fmt::format("internal error: {}; please report this", error.what())};
    } catch (...) {
        return {Exit::internal, "internal error: something unknown was thrown; please report this"};
    }
}

}  // namespace flanmoe
