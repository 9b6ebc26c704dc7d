#include "train/progress.hpp"

#include "core/file.hpp"
#include "train/temporary_directory.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

using namespace flanmoe;

TEST_SUITE("train/progress") {
    const Metrics full = {{"loss", 3.2134}, {"balance", 1.02}, {"learning_rate", 1e-3}, {"gradient_norm", 0.873}, {"tokens_per_second", 15234}, {"flops_per_second", 3.1e11},
                          {"peak_share", 0.712}, {"expert_load", 1.375}, {"dropped", 0.0213}, {"confidence", 0.61}, {"skipped", 2}};

    TEST_CASE("a line says what matters most and stays inside its columns") {
        const std::string line = metrics_line(120, 1000, full, 42, 200);
        CHECK(line == "step 120/1000 | loss 3.213 | grad 0.87 | 0:42 left | lr 1.0e-03 | 15.2k tok/s | 310 GFLOP/s (71 %) | load 1.38 | drop 2.1 % | skipped 2 | balance 1.020 | conf 0.61");
        CHECK(metrics_line(120, 1000, full, 42).size() <= 160);
        for (int columns : {20, 40, 60, 80, 100, 140}) CHECK(metrics_line(120, 1000, full, 42, columns).size() <= static_cast<size_t>(columns));
        CHECK(metrics_line(1, 2, {{"loss", std::nan("")}}, -1) == "step 1/2 | loss nan");
        CHECK(metrics_line(1, 2, {}, -1) == "step 1/2");
    }

    TEST_CASE("where there is no terminal, records are plain lines without control characters") {
        test::TemporaryDirectory folder;
        std::FILE* out = std::fopen((folder.path / "out").c_str(), "w");
        {
            TrainingProgress progress(0, 100, out);
            for (int step = 1; step <= 20; ++step) {
                progress.step(step);
                if (step % 10 == 0) progress.record(step, full);
            }
            progress.message("saved step 20");
        }
        std::fclose(out);
        const std::string text = read_file(folder.path / "out");
        CHECK(std::count(text.begin(), text.end(), '\n') == 3);
        CHECK(text.find('\r') == std::string::npos);
        CHECK(text.find('\033') == std::string::npos);
        CHECK(text.find("step 10/100") == 0);
        CHECK(text.ends_with("saved step 20\n"));
    }
}
