#include "core/error.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <new>

using namespace flanmoe;

TEST_SUITE("core/error") {
    TEST_CASE("whatever is thrown has a sentence and the code of its kind") {
        const auto of = [](const auto& exception) { return error_of(std::make_exception_ptr(exception)); };
        const Error own = of(Error(Exit::hang, "rank 3 did not come"));
        CHECK(own.code == Exit::hang);
        CHECK(std::string(own.what()) == "rank 3 did not come");
        CHECK(of(std::bad_alloc()).code == Exit::out_of_memory);
        CHECK(of(std::filesystem::filesystem_error("cannot copy", std::make_error_code(std::errc::no_space_on_device))).code == Exit::io);
        const Error unforeseen = of(std::out_of_range("vector::at"));
        CHECK(unforeseen.code == Exit::internal);
        CHECK(std::string(unforeseen.what()) == "internal error: vector::at; please report this");
        CHECK(of(17).code == Exit::internal);
    }
}
