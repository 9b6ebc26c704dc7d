#include "train/metrics.hpp"

#include "core/file.hpp"
#include "train/temporary_directory.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

using namespace flanmoe;

namespace {
Metrics loss(double value) { return {{"loss", value}, {"tokens", 1e6}}; }
}  // namespace

TEST_SUITE("train/metrics") {
    TEST_CASE("a record is one line of JSON, non-finite values are null") {
        test::TemporaryDirectory folder;
        MetricsLog log(folder.path / "metrics.jsonl", 0);
        log.write("train", 10, loss(0.5));
        log.write("train", 20, {{"loss", std::nan("")}, {"gradient_norm", INFINITY}});
        CHECK(read_file(folder.path / "metrics.jsonl") ==
              "{\"kind\":\"train\",\"step\":10,\"loss\":0.5,\"tokens\":1000000}\n{\"kind\":\"train\",\"step\":20,\"loss\":null,\"gradient_norm\":null}\n");
    }

    TEST_CASE("on resume, later steps and a torn line are removed and no step stands twice") {
        test::TemporaryDirectory folder;
        const auto path = folder.path / "metrics.jsonl";
        {
            MetricsLog log(path, 0);
            for (int step : {10, 20, 30, 40}) log.write("train", step, loss(1.0 / step));
            log.write("validation", 40, loss(2));
        }
        std::ofstream(path, std::ios::app) << "{\"kind\":\"train\",\"step\":1";
        const std::string before = read_file(path);
        MetricsLog(path, 40);
        CHECK(read_file(path) == before.substr(0, before.rfind('\n') + 1));
        MetricsLog log(path, 20);
        log.write("train", 30, loss(3));
        const std::string after = read_file(path);
        CHECK(std::count(after.begin(), after.end(), '\n') == 3);
        CHECK(after.starts_with(before.substr(0, before.find("{\"kind\":\"train\",\"step\":30"))));
        CHECK(after.ends_with("\"step\":30,\"loss\":3,\"tokens\":1000000}\n"));
        MetricsLog(path, 0);
        CHECK(read_file(path).empty());
    }

    TEST_CASE("a write that fails is counted and leaves whole lines") {
        // /dev/full accepts opening and refuses writing: a full disk.
        if (!std::filesystem::exists("/dev/full")) return;
        LogFile full("/dev/full");
        CHECK_FALSE(full.append("a record\n"));
        CHECK_FALSE(full.append("a record\n"));
        CHECK(full.lost() == 2);
    }

    TEST_CASE("a metric is found by name") {
        CHECK(metric(loss(0.25), "loss") == 0.25);
        CHECK(metric(loss(0.25), "missing", -1) == -1);
    }
}
