# The recipes of the project. Each does the set-up it needs, in build/; see tools/setup.

PYTHON ?=
PREFIX ?= $(CURDIR)/build/prefix
export PYTHON

BIN := build/venv/bin
CMAKE := $(BIN)/cmake
CTEST := $(BIN)/ctest
# Tests wait more than they compute.
JOBS := $(shell expr $$(nproc) + 2)
# Directory of the package built for the interpreter of build/venv.
PACKAGE = $(CURDIR)/build/$(1)/python-$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# $(call configure,preset,cache files): configures when something it depends on is newer.
configure = if [ -z "$$(find build/$(1)/build.ninja -newer CMakePresets.json $(foreach file,$(2),-newer $(file)) 2>/dev/null)" ]; \
	then $(CMAKE) --preset $(1) $(foreach file,$(2),-C $(file)) && touch build/$(1)/build.ninja; fi
# $(call build,preset,cache files): configures and builds.
build = $(call configure,$(1),$(2)) && $(CMAKE) --build --preset $(1)

# ThreadSanitizer of g++ 12 does not start where the kernel spreads addresses too widely.
FIXED_ADDRESSES = $(shell setarch -R true 2>/dev/null && echo setarch -R)

.PHONY: help
help:
	@awk -F ':.* ## ' '/^[a-z]+:.* ## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "PYTHON=... chooses the interpreter (3.10 to 3.15), PREFIX=... where to install."

.PHONY: demo
demo: ## the sessions of the reference page, live, and a job spread over gateways
	@tools/setup demo
	@$(call build,release,build/setup.cmake)
	@PYTHONPATH=$(call PACKAGE,release) $(BIN)/python examples/python/demo.py

.PHONY: test
test: ## all tests, C++ and Python, with every interpreter found
	@tools/setup test
	@$(call build,dev,build/setup.cmake build/interpreters.cmake)
	@rm -f build/dev/faults*.txt
	$(CTEST) --preset dev -j $(JOBS)
	@cat build/dev/faults-alone.txt build/dev/faults.txt

.PHONY: clients
clients: wheel ## programs that people have today, on this execnet and on the released one
	@tools/setup test
	@$(call build,dev,build/setup.cmake build/interpreters.cmake)
	PYTHONPATH=$(call PACKAGE,dev) $(BIN)/python -m pytest -p no:cacheprovider tests/clients

.PHONY: bench
bench: ## what things cost, measured
	@tools/setup bench
	@$(call build,release,build/setup.cmake build/bench.cmake)
	@PYTHONPATH=$(call PACKAGE,release) $(BIN)/python bench/run.py

.PHONY: instructions
instructions: ## counts the instructions of the hot paths, and compares
	@tools/setup bench
	@$(call configure,release,build/setup.cmake build/bench.cmake)
	@$(CMAKE) --build --preset release --target instructions
	@$(BIN)/python bench/instructions/count.py build/release

.PHONY: lint
lint: ## formatting, clang-tidy, ruff and mypy
	@tools/setup test lint
	@$(call build,dev,build/setup.cmake build/interpreters.cmake)
	tools/lint $(call PACKAGE,dev)

.PHONY: stubs
stubs: ## makes the types and docstrings that editors and mypy see, python/execnet/_core.pyi
	@tools/setup test lint
	@$(call build,dev,build/setup.cmake build/interpreters.cmake)
	tools/stubs $(call PACKAGE,dev)

.PHONY: asan
asan: ## C++ and Python tests with AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/setup test
	@$(call build,asan,build/setup.cmake)
	$(CTEST) --preset asan -j $(JOBS)

.PHONY: tsan
tsan: ## C++ and Python tests with ThreadSanitizer
	@tools/setup test
	@$(call build,tsan,build/setup.cmake)
	$(FIXED_ADDRESSES) $(CTEST) --preset tsan -j $(JOBS)

.PHONY: races
races: ## C++ tests with ThreadSanitizer, the part of tsan that is run for every change
	@tools/setup test
	@$(call build,races,build/setup.cmake)
	$(FIXED_ADDRESSES) $(CTEST) --preset races -j $(JOBS)

.PHONY: soak
soak: wheel ## races, wrong inputs, faults, slow readers, starts, sessions, each for long; the log is build/soak.log
	@tools/setup test
	@$(call build,dev,build/setup.cmake build/interpreters.cmake)
	@$(call build,tsan,build/setup.cmake)
	tools/soak

.PHONY: fuzz
fuzz: ## libFuzzer on decoder, frames and specifications; FUZZ_SECONDS=20 for each
	@tools/setup fuzz
	@$(call build,fuzz,build/setup.cmake build/fuzz.cmake)
	tools/fuzz build/fuzz/fuzz

.PHONY: docs
docs: ## runs the code in the documentation
	@tools/setup test
	@$(call build,dev,build/setup.cmake build/interpreters.cmake)
	PYTHONPATH=$(call PACKAGE,dev) $(BIN)/python -m pytest tests/docs

.PHONY: wheel
# The library in it is compiled as in the preset release.
wheel: export CMAKE_CXX_COMPILER_LAUNCHER = $(shell command -v ccache)
wheel: export CCACHE_DIR := $(CURDIR)/build/ccache
wheel: export CCACHE_BASEDIR := $(CURDIR)
wheel: ## a wheel of the Python package, in build/wheel
	@tools/setup
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --no-deps --disable-pip-version-check -w build/wheel .

.PHONY: install
install: export PATH := $(CURDIR)/$(BIN):$(PATH)
install: CMAKE := cmake
install: ## the C++ library, its headers and its CMake package, into PREFIX
	@tools/setup library
	@$(call build,library,build/library.cmake)
	cmake --install build/library --prefix $(PREFIX)

.PHONY: fresh
fresh: ## both commands on fresh machines: bare trees of Debian, as root and as a user without sudo; for root
	tools/fresh

.PHONY: newest
newest: ## all tests on Python 3.14 and 3.15, in a bare tree of Debian sid; for root
	FRESH_AS=root FRESH_COMMANDS=test FRESH_PACKAGES="python3.15-dev python3.15-venv" tools/fresh sid

.PHONY: compilers
compilers: ## compiles all with other compilers, the oldest and the newest, in bare trees of Debian; for root
	tools/compilers

.PHONY: clean
clean: ## removes all that was built
	rm -rf build
