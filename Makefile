PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test test-all check docs general-model format

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

demo: setup
	$(BIN)/cryoquery demo demo

# One thread per process: two that each take all cores are slower than one. Three processes also where there
# are two cores, since some tests wait, for Slurm, a browser or a process that is to die.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST)

# The tests that `make test` does with some of many random cases, with all of them; and the benchmarks at toy size.
test-all: setup
	$(PYTEST) --all -m "thorough or second_tier"

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs benchmarks examples configs .ci *.md *.toml *.yml *.cff Makefile

# The site of docs/, into site/; a broken link is an error. Needs no network.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The model that comes with the package, from simulated micrographs: about an hour and a half on two cores. May be interrupted.
general-model: setup
	$(BIN)/python benchmarks/general_model.py all

format: setup
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
