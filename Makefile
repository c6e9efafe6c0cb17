# Everything a newcomer needs is `make demo` and `make test`; both install what they need into .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
# What an editable install does not pick up by itself.
BUILD = pyproject.toml setup.py CMakeLists.txt $(wildcard csrc/CMakeLists.txt csrc/*/* csrc/include/*/* kernels/CMakeLists.txt kernels/*/*.cpp kernels/*/*.hpp)

.PHONY: demo test wheel-check bench gpu lint clean

demo: $(VENV)/.demo  ## classify shipped pictures and a real photograph; pictures in demo-output/
	$(BIN)/fusedx demo

test: $(VENV)/.test  ## the whole test suite
	$(BIN)/python -m pytest -q

wheel-check:  ## sdist -> wheel -> clean environment -> demo
	$(PYTHON) tools/check_wheel.py

bench: $(VENV)/.test  ## the figures of README.md
	$(BIN)/python benchmarks/bench_chain.py

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
