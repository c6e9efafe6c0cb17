# Everything a newcomer needs is `make demo` and `make test`; both install what they need into .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SECONDS_EACH ?= 600
WORKERS ?= 2
# Tests start Python hundreds of times; each would compile the same modules again, a fifth of a second of one second.
unexport PYTHONDONTWRITEBYTECODE
PIP = $(BIN)/python -m pip --disable-pip-version-check
# What an editable install does not pick up by itself.
BUILD = pyproject.toml setup.py CMakeLists.txt $(wildcard csrc/CMakeLists.txt csrc/*/* csrc/include/*/* kernels/CMakeLists.txt kernels/*/*.cpp kernels/*/*.hpp)

.PHONY: demo test wheel-check bench fuzz gpu lint clean

demo: $(VENV)/.demo  ## classify shipped pictures and a real photograph; pictures in demo-output/
	$(BIN)/fusedx demo

test: $(VENV)/.test  ## the whole test suite
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

wheel-check:  ## sdist -> wheel -> clean environment -> demo
	$(PYTHON) tools/check_wheel.py

bench: $(VENV)/.test  ## the figures of README.md
	$(BIN)/python benchmarks/bench_chain.py
	$(BIN)/python benchmarks/bench_cpu.py

fuzz: $(VENV)/.test  ## each fuzzer for ten minutes; needs clang with libFuzzer
	CC=clang CXX=clang++ $(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -S . -B build/fuzz -DFUSEDX_PYTHON=OFF \
	  -DFUSEDX_TESTS=ON -DFUSEDX_SANITIZE=address,undefined -DFUSEDX_LIBFUZZER=ON && $(BIN)/ninja -C build/fuzz fuzzers
	$(BIN)/python tests/native/fuzz/seeds.py build/seeds python/fusedx/demo/model.fusedx
	for f in manifest safetensors onnx image; do mkdir -p build/corpus/$$f; build/fuzz/tests/fuzz_$$f -max_total_time=$(SECONDS_EACH) \
	  -max_len=131072 -artifact_prefix=build/ build/corpus/$$f build/seeds/$$f || exit 1; done

gpu:  ## on a machine with a GPU and its own torch, straight from the tree: every GPU test, file by file, then the benchmark
	failed=0; for file in tests/gpu/test_*.py; do PYTHONPATH=python $(PYTHON) -m pytest -q $$file || failed=1; done; \
	PYTHONPATH=python $(PYTHON) benchmarks/bench_gpu.py -o bench-gpu.json && exit $$failed

lint: $(VENV)/.test
	$(PIP) install -q ruff mypy
	$(BIN)/ruff check .
	MYPYPATH=python $(BIN)/mypy -p fusedx --ignore-missing-imports

# A half-made environment is removed: Debian without python3-venv leaves one that has no pip.
$(VENV)/.made:
	$(PYTHON) -m venv $(VENV) && $(PIP) --version && touch $@ || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: $(VENV)/.made $(BUILD)
	$(PIP) install -q -e '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.made $(BUILD)
	$(PIP) install -q -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist demo-output kernels/cubin python/fusedx/_native*.so python/fusedx/_build_info.json
