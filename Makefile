# flanmoe: `make` builds, `make test` tests, `make quickstart` runs the main job. The first of these on a fresh Debian 12 installs what is
# missing (make setup). Variables: SAN=1 (AddressSanitizer and UBSan), ARCH=x86-64-v3 (instruction set; default: this machine's),
# CXX, NVCC, PREFIX (make install), ONLY=pattern (make test: only suites that match).

CXX ?= g++
NVCC ?= $(shell command -v nvcc 2>/dev/null)
ARCH ?= native
PREFIX ?= /usr/local
ifdef SAN
BUILD := build/san
MODE := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
else
BUILD := build
MODE := -O3
endif

CXXFLAGS := -std=c++20 $(MODE) -march=$(ARCH) -fopenmp -fno-math-errno -fno-trapping-math -Wall -Wextra -Werror -Wno-restrict -Wno-missing-field-initializers -Isrc -MMD -MP
LIBS := -lsentencepiece_train -lsentencepiece -ldnnl -lsimdjson -lfmt -lxxhash -lzstd -lz

SOURCES := $(filter-out src/main.cpp,$(shell find src -name '*.cpp'))
TESTS := $(shell find test -name '*_test.cpp') test/main.cpp test/ops/check.cpp
OBJECTS := $(SOURCES:%.cpp=$(BUILD)/%.o)
TEST_OBJECTS := $(TESTS:%.cpp=$(BUILD)/%.o)

all: $(BUILD)/flanmoe

$(BUILD)/flanmoe: $(BUILD)/src/main.o $(BUILD)/flanmoe.a
	$(CXX) $(CXXFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/flanmoe-test: $(TEST_OBJECTS) $(BUILD)/flanmoe.a
	$(CXX) $(CXXFLAGS) -o $@ $^ $(LIBS)

# Times single operations (test/bench/ops_bench.cpp).
$(BUILD)/ops-bench: $(BUILD)/test/bench/ops_bench.o $(BUILD)/flanmoe.a
	$(CXX) $(CXXFLAGS) -o $@ $^ $(LIBS)

# A thin archive: only what a program uses is linked.
$(BUILD)/flanmoe.a: $(OBJECTS)
	@rm -f $@
	ar rcsT $@ $^

# The library that breaks file operations (test/faults/README.md) is loaded by tests and linked to nothing.
$(BUILD)/flanmoe-test: | $(BUILD)/faults.so
$(BUILD)/faults.so: test/faults/shim.cpp
	@mkdir -p $(@D)
	$(CXX) -std=c++20 -O1 -g -Wall -Wextra -Werror -shared -fPIC -o $@ $< -ldl

$(BUILD)/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -Itest -c -o $@ $<

-include $(OBJECTS:.o=.d) $(TEST_OBJECTS:.o=.d) $(BUILD)/src/main.d $(BUILD)/test/bench/ops_bench.d

.PHONY: all
