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
            nlohmann-json3-dev doctest-dev

ifdef SAN
BUILD := build/san
MODE := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -D_GLIBCXX_ASSERTIONS
else
BUILD := build
MODE := -O3
endif

# GCC 12 warns falsely: -Wno-restrict, about std::string concatenation (its bug 105651); -Wno-stringop-overflow, about a write behind fmt's fill character,
# which is at most four bytes.
FLAGS := -std=c++20 $(MODE) -march=$(ARCH) -fopenmp -fno-math-errno -fno-trapping-math -Wall -Wextra -Werror -Wno-restrict -Wno-stringop-overflow \
         -Wno-missing-field-initializers -Isrc -MMD -MP $(CXXFLAGS)
LIBS := -Wl,-z,relro,-z,now -lsentencepiece_train -lsentencepiece -ldnnl -lsimdjson -lfmt -lxxhash -lzstd -lz $(LDFLAGS)

SOURCES := $(filter-out src/main.cpp,$(shell find src -name '*.cpp'))
TESTS := $(shell find test -name '*_test.cpp') test/main.cpp test/ops/check.cpp
OBJECTS := $(SOURCES:%.cpp=$(BUILD)/%.o)
TEST_OBJECTS := $(TESTS:%.cpp=$(BUILD)/%.o)

# The CUDA implementations are built where there is a toolkit and there are any: for A100 (sm_80) and H100, H200 (sm_90a).
CUDA_SOURCES := $(if $(NVCC),$(shell find cuda -name '*.cu'))
ifneq ($(CUDA_SOURCES),)
OBJECTS += $(CUDA_SOURCES:%.cu=$(BUILD)/%.o)
FLAGS += -DFLANMOE_CUDA
LIBS += -L$(dir $(realpath $(NVCC)))../lib64 -lcublasLt -lcublas -lcudart
NVCCFLAGS := -std=c++20 -O3 -lineinfo -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -Werror all-warnings -Isrc -DFLANMOE_CUDA -MMD -MP
endif

all: $(BUILD)/flanmoe

$(BUILD)/flanmoe: $(BUILD)/src/main.o $(BUILD)/flanmoe.a
	$(CXX) $(FLAGS) -o $@ $^ $(LIBS)

$(BUILD)/flanmoe-test: $(TEST_OBJECTS) $(BUILD)/flanmoe.a
	$(CXX) $(FLAGS) -o $@ $^ $(LIBS)

# Times single operations (test/bench/ops_bench.cpp).
$(BUILD)/ops-bench: $(BUILD)/test/bench/ops_bench.o $(BUILD)/flanmoe.a
	$(CXX) $(FLAGS) -o $@ $^ $(LIBS)

# A thin archive: only what a program uses is linked.
$(BUILD)/flanmoe.a: $(OBJECTS)
	@rm -f $@
	ar rcsT $@ $^

# The library that breaks file operations (test/faults/README.md) is loaded by tests and linked to nothing.
$(BUILD)/flanmoe-test: | $(BUILD)/faults.so
$(BUILD)/faults.so: test/faults/shim.cpp
	@mkdir -p $(@D)
	$(CXX) -std=c++20 -O1 -g -Wall -Wextra -Werror -shared -fPIC -o $@ $< -ldl

$(BUILD)/%.o: %.cpp $(BUILD)/flags | found
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) -Itest -c -o $@ $<

$(BUILD)/%.o: %.cu $(BUILD)/flags | found
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) -c -o $@ $<

# Everything is rebuilt when the compiler, its flags, or the machine that `native` stands for change.
$(BUILD)/flags: always
	@mkdir -p $(@D)
	@flags='$(shell $(CXX) --version 2>/dev/null | head -1) $(shell $(CXX) -march=$(ARCH) -Q --help=target 2>/dev/null | awk '$$1 == "-march=" {print $$2}') $(FLAGS) $(NVCC)'; \
	echo "$$flags" | cmp -s - $@ || echo "$$flags" > $@

found:
	@echo "compiler: $(shell $(CXX) --version 2>/dev/null | head -1 || true); instruction set: $(ARCH); $(if $(NVCC),CUDA: $(shell $(NVCC) --version \
	| sed -n 's/.*release \([0-9.]*\).*/\1/p')$(if $(CUDA_SOURCES),, (no sources in cuda/ yet: CPU only)),no nvcc: CPU only)"

-include $(OBJECTS:.o=.d) $(TEST_OBJECTS:.o=.d) $(BUILD)/src/main.d $(BUILD)/test/bench/ops_bench.d

setup:
	@command -v dpkg-query > /dev/null || { echo "setup: not a Debian system; install the equivalents of: $(PACKAGES)"; exit 0; }; \
	present=$$(dpkg-query -W -f '$${db:Status-Abbrev} $${Package}\n' $(PACKAGES) 2> /dev/null | awk '$$1 == "ii" {print $$2}'); missing=; \
	for package in $(PACKAGES); do echo "$$present" | grep -qxF "$$package" || missing="$$missing $$package"; done; \
	[ -n "$$missing" ] || exit 0; \
	echo "setup: installing Debian packages:$$missing"; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y --no-install-recommends $$missing

test: setup
	@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/flanmoe $(BUILD)/flanmoe-test
	$(BUILD)/flanmoe-test $(if $(ONLY),-ts='$(ONLY)')
	$(if $(ONLY),,FLANMOE=$(BUILD)/flanmoe test/cli/run.sh)

quickstart: setup
	@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/flanmoe
	run/quickstart.sh

bench: all
	$(BUILD)/flanmoe bench $(CONFIG)

lint:
	test/lint.sh

install: all
	install -D $(BUILD)/flanmoe $(DESTDIR)$(PREFIX)/bin/flanmoe
	for file in $$(find configs -name '*.toml'); do install -D -m 644 $$file $(DESTDIR)$(PREFIX)/share/flanmoe/$$file; done

clean:
	rm -rf build

.PHONY: all found always setup test quickstart bench lint install clean
