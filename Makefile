# flanmoe: `make` builds, `make test` tests, `make quickstart` runs the main job; on a fresh Debian 12 the last two first install what is missing
# (make setup). Variables: SAN=1 (AddressSanitizer and UBSan, in build/san), ARCH=x86-64-v3 (instruction set; default: this machine's), CXX, NVCC (empty:
# no CUDA), PREFIX and DESTDIR (make install), ONLY='data/*' (make test: only suites that match), CONFIG (make bench).

CXX ?= g++
NVCC ?= $(shell command -v nvcc 2> /dev/null)
ARCH ?= native
PREFIX ?= /usr/local
CONFIG ?= configs/model/t5-small.toml
JOBS ?= $(shell nproc)

PACKAGES := g++ make libdnnl-dev libsentencepiece-dev libsimdjson-dev libfmt-dev libxxhash-dev libzstd-dev zlib1g-dev libcli11-dev libtomlplusplus-dev \
            nlohmann-json3-dev libyaml-cpp-dev libpugixml-dev doctest-dev libboost-context-dev libopenmpi-dev openmpi-bin

ifdef SAN
BUILD := build/san
# -fexpensive-optimizations: products and sums fused as in the other build, since some sums must cancel to the bit.
MODE := -O1 -fexpensive-optimizations -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -D_GLIBCXX_ASSERTIONS
else
BUILD := build
MODE := -O3
endif

# MPI: for the one file that includes it, and for linking. `make setup` runs before there is any.
MPI_FLAGS := $(patsubst -I%,-isystem%,$(shell mpicc --showme:compile 2> /dev/null))
MPI_LIBS := $(shell mpicc --showme:link 2> /dev/null)

# GCC 12 warns falsely: -Wno-restrict, about std::string concatenation (its bug 105651); -Wno-stringop-overflow, about a write behind fmt's fill character,
# which is at most four bytes.
FLAGS := -std=c++20 $(MODE) -march=$(ARCH) -fopenmp -fno-math-errno -fno-trapping-math -Wall -Wextra -Werror -Wno-restrict -Wno-stringop-overflow \
         -Wno-missing-field-initializers -Isrc -MMD -MP $(CXXFLAGS)
LIBS := -Wl,-z,relro,-z,now -lsentencepiece_train -lsentencepiece -ldnnl -lsimdjson -lyaml-cpp -lpugixml -lfmt -lxxhash -lzstd -lz $(MPI_LIBS) $(LDFLAGS)

SOURCES := $(filter-out src/main.cpp,$(shell find src -name '*.cpp'))
TESTS := $(shell find test -name '*_test.cpp' -not -path 'test/cudasim/*') test/main.cpp test/ops/check.cpp
OBJECTS := $(SOURCES:%.cpp=$(BUILD)/%.o)
TEST_OBJECTS := $(TESTS:%.cpp=$(BUILD)/%.o)

$(BUILD)/src/comm/mpi.o: private FLAGS += $(MPI_FLAGS)

# The CUDA implementations are built where there is a toolkit: for A100 (sm_80) and H100, H200 (sm_90a), and as PTX for what comes later. The runtime is
# linked statically and finds the driver when it runs, so the program starts on machines without either. fmt 9 wants to be told that nvcc knows constexpr.
CUDA_SOURCES := $(shell find cuda -name '*.cu')
CUDA_AWARE := $(filter src/ops/% src/comm/device_ranks.cpp,$(SOURCES))  # what must know whether they are linked
ifneq ($(NVCC),)
OBJECTS += $(CUDA_SOURCES:%.cu=$(BUILD)/%.o)
CUDA_HOME := $(abspath $(dir $(realpath $(NVCC)))..)
CUDA_LIBRARIES := $(dir $(firstword $(wildcard $(foreach folder,lib64 lib targets/x86_64-linux/lib,$(CUDA_HOME)/$(folder)/libcudart_static.a))))
CUDA_LIBS := -L$(CUDA_LIBRARIES) -Wl,-rpath,$(CUDA_LIBRARIES:/=) -lcudart_static -lrt -ldl -lpthread
NVCCFLAGS := -std=c++20 -O3 -lineinfo --expt-relaxed-constexpr -gencode arch=compute_80,code=[sm_80,compute_80] -gencode arch=compute_90a,code=sm_90a \
             -Werror all-warnings -DFMT_USE_CONSTEXPR=1 -Isrc -MMD -MP
$(CUDA_AWARE:%.cpp=$(BUILD)/%.o): private FLAGS += -DFLANMOE_CUDA
endif

# The same sources for the simulator (test/cudasim/README.md). Of src/ only the operations' dispatch differs. In asan/, what runs on the simulated device is
# compiled again with AddressSanitizer.
SIM := $(BUILD)/sim
SIM_SOURCES := $(CUDA_SOURCES) $(filter-out %_test.cpp,$(wildcard test/cudasim/*.cpp))
SIM_TESTS := $(wildcard test/cudasim/*_test.cpp)
SIM_FLAGS = $(FLAGS) -O2 -DFLANMOE_CUDA -DFLANMOE_CUDASIM -I. -Itest -Itest/cudasim -Wno-unknown-pragmas
SIM_SRC := $(filter-out $(BUILD)/cuda/%.o $(CUDA_AWARE:%.cpp=$(BUILD)/%.o),$(OBJECTS)) $(CUDA_AWARE:%.cpp=$(if $(NVCC),$(BUILD),$(SIM))/%.o)
SIM_OP_TESTS := $(filter $(BUILD)/test/ops/% $(BUILD)/test/model/device_test.o $(BUILD)/test/comm/device_ranks_test.o $(BUILD)/test/main.o,$(TEST_OBJECTS))
SIM_OBJECTS := $(addsuffix .o,$(basename $(SIM_SOURCES:%=$(SIM)/%)))
SIM_TEST_OBJECTS := $(SIM_TESTS:%.cpp=$(SIM)/%.o)
ASAN_OBJECTS := $(patsubst $(SIM)/%,$(SIM)/asan/%,$(SIM_OBJECTS) $(SIM_TEST_OBJECTS))
SIM_ASAN := -O1 -g -fsanitize=address,alignment -fno-sanitize-recover=all -fno-omit-frame-pointer

all: $(BUILD)/flanmoe

$(BUILD)/flanmoe: $(BUILD)/src/main.o $(BUILD)/flanmoe.a
	$(CXX) $(FLAGS) -o $@ $^ $(LIBS) $(CUDA_LIBS)

$(BUILD)/flanmoe-test: $(TEST_OBJECTS) $(BUILD)/flanmoe.a
	$(CXX) $(FLAGS) -o $@ $^ $(LIBS) $(CUDA_LIBS)

$(BUILD)/flanmoe-sim: $(BUILD)/src/main.o $(SIM)/flanmoe.a
	$(CXX) $(SIM_FLAGS) -o $@ $^ $(LIBS) -lboost_context

# Tests of operations and of whole models and training steps, with --device cuda on the simulator, and of the simulator itself.
$(BUILD)/flanmoe-sim-test: $(SIM_TEST_OBJECTS) $(SIM_OP_TESTS) $(SIM)/flanmoe.a
	$(CXX) $(SIM_FLAGS) -o $@ $^ $(LIBS) -lboost_context

$(BUILD)/flanmoe-sim-test-asan: $(ASAN_OBJECTS) $(SIM_OP_TESTS) $(SIM_SRC)
	$(CXX) $(SIM_FLAGS) -fsanitize=address,alignment -o $@ $^ $(LIBS) -lboost_context

# Times single operations (test/bench/ops_bench.cpp); on the simulator only to test itself.
BENCH := $(addprefix $(BUILD)/test/bench/,ops_bench.o device_bench.o)
$(BUILD)/ops-bench: $(BENCH) $(BUILD)/flanmoe.a
	$(CXX) $(FLAGS) -o $@ $^ $(LIBS) $(CUDA_LIBS)
$(BUILD)/ops-bench-sim: $(BENCH) $(SIM)/flanmoe.a
	$(CXX) $(SIM_FLAGS) -o $@ $^ $(LIBS) -lboost_context

# Thin archives: only what a program uses is linked.
$(BUILD)/flanmoe.a: $(OBJECTS)
$(SIM)/flanmoe.a: $(SIM_SRC) $(SIM_OBJECTS)
$(BUILD)/flanmoe.a $(SIM)/flanmoe.a:
	@rm -f $@
	ar rcsT $@ $^

# The library that breaks file operations (test/faults/README.md) is loaded by tests and linked to nothing.
$(BUILD)/flanmoe-test: | $(BUILD)/faults.so
$(BUILD)/faults.so: test/faults/shim.cpp
	@mkdir -p $(@D)
	$(CXX) -std=c++20 -O1 -g -Wall -Wextra -Werror -shared -fPIC -o $@ $< -ldl

$(SIM)/asan/%.o: %.cu $(BUILD)/flags | found
	@mkdir -p $(@D)
	$(CXX) $(SIM_FLAGS) $(SIM_ASAN) -x c++ -c -o $@ $<
$(SIM)/asan/%.o: %.cpp $(BUILD)/flags | found
	@mkdir -p $(@D)
	$(CXX) $(SIM_FLAGS) $(SIM_ASAN) -c -o $@ $<
$(SIM)/%.o: %.cu $(BUILD)/flags | found
	@mkdir -p $(@D)
	$(CXX) $(SIM_FLAGS) -x c++ -c -o $@ $<
$(SIM)/%.o: %.cpp $(BUILD)/flags | found
	@mkdir -p $(@D)
	$(CXX) $(SIM_FLAGS) -c -o $@ $<

$(BUILD)/%.o: %.cpp $(BUILD)/flags | found
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) -Itest -c -o $@ $<

$(BUILD)/%.o: %.cu $(BUILD)/flags | found
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) -c -o $@ $<

# Everything is rebuilt when the compiler, its flags, or the machine that `native` stands for change.
$(BUILD)/flags: always
	@mkdir -p $(@D)
	@flags='$(shell $(CXX) --version 2>/dev/null | head -1) $(shell $(CXX) -march=$(ARCH) -Q --help=target 2>/dev/null | awk '$$1 == "-march=" {print $$2}') $(FLAGS) $(NVCC) $(NVCCFLAGS) $(SIM_ASAN)'; \
	echo "$$flags" | cmp -s - $@ || echo "$$flags" > $@

found:
	@echo "compiler: $(shell $(CXX) --version 2>/dev/null | head -1 || true); instruction set: $(ARCH); $(if $(NVCC),CUDA: $(shell $(NVCC) --version \
	| sed -n 's/.*release \([0-9.]*\).*/\1/p'),no nvcc: CPU only)"

-include $(SIM_OBJECTS:.o=.d) $(filter $(SIM)/%,$(SIM_SRC:.o=.d)) $(SIM_TEST_OBJECTS:.o=.d) $(ASAN_OBJECTS:.o=.d) $(OBJECTS:.o=.d) $(TEST_OBJECTS:.o=.d) $(BUILD)/src/main.d $(BENCH:.o=.d)

setup:
	@command -v dpkg-query > /dev/null || { echo "setup: not a Debian system; install the equivalents of: $(PACKAGES)"; exit 0; }; \
	present=$$(dpkg-query -W -f '$${db:Status-Abbrev} $${Package}\n' $(PACKAGES) 2> /dev/null | awk '$$1 == "ii" {print $$2}'); missing=; \
	for package in $(PACKAGES); do echo "$$present" | grep -qxF "$$package" || missing="$$missing $$package"; done; \
	[ -n "$$missing" ] || exit 0; \
	echo "setup: installing Debian packages:$$missing"; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y --no-install-recommends $$missing

test: setup
	@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/flanmoe $(BUILD)/flanmoe-test $(BUILD)/flanmoe-sim $(BUILD)/flanmoe-sim-test-asan
	$(BUILD)/flanmoe-test $(if $(ONLY),-ts='$(ONLY)')
	$(BUILD)/flanmoe-sim-test-asan --device cuda $(if $(ONLY),-ts='$(ONLY)')
	$(if $(ONLY),,FLANMOE=$(BUILD)/flanmoe test/cli/run.sh)

quickstart: setup
	@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/flanmoe
	run/quickstart.sh

bench: all
	$(BUILD)/flanmoe bench $(CONFIG)

# On a machine with a GPU: everything that is proved, and the figures (test/gpu/).
gpu-test gpu-bench: setup
	@$(MAKE) --no-print-directory -j$(JOBS) $(addprefix $(BUILD)/,flanmoe flanmoe-test ops-bench)
	test/gpu/$(@:gpu-%=%).sh

# A folder that runs on other machines: the instruction set of 2013 and later unless ARCH says another.
PORTABLE := build/portable
bundle: setup
	@$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(PORTABLE) ARCH=$(ARCH:native=x86-64-v3) $(addprefix $(PORTABLE)/,flanmoe flanmoe-test ops-bench faults.so)
	run/bundle.sh $(PORTABLE) build/bundle

lint:
	test/lint.sh

install: all
	install -D $(BUILD)/flanmoe $(DESTDIR)$(PREFIX)/bin/flanmoe
	for file in $$(find configs -name '*.toml'); do install -D -m 644 $$file $(DESTDIR)$(PREFIX)/share/flanmoe/$$file; done

clean:
	rm -rf build

.PHONY: all found always setup test quickstart bench gpu-test gpu-bench bundle lint install clean
