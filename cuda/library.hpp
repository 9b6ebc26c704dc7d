// Functions of a shared library, looked up when it is first needed: the program starts where it is not installed.
#pragma once

#include "core/error.hpp"

#include <dlfcn.h>

#include <string>

namespace flanmoe::cuda {

class Library {
public:
    /// Exit::hardware if it cannot be loaded.
    explicit Library(const std::string& file) : file_(file), handle_(::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) {
        if (!handle_) missing();
    }
    void* symbol(const char* name) const {
        void* const found = ::dlsym(handle_, name);
        if (!found) missing();
        return found;
    }

private:
    [[noreturn]] void missing() const {
        const char* const why = ::dlerror();
        fail(Exit::hardware, "{} cannot be loaded ({}); put its folder into LD_LIBRARY_PATH, or use --device cpu", file_, why ? why : "no reason is given");
    }
    std::string file_;
    void* handle_;
};

}  // namespace flanmoe::cuda
