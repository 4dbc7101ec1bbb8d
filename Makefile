# make compare   train every loss on the built-in emoji set, print the comparison
# make test      run the tests: four minutes on two cores
# make slow      run the tests that take longer
# make numeric   run the numeric tests once more, on the plainest instructions the processor has, with one thread
# make resolve   check on PyPI's metadata that the constraints resolve for every Python found here
# make check     formatting, lint and types
# make docs      the documentation, into site/
# ARGS go to sigmax compare, for example: make compare ARGS="my.csv --output runs/mine"
# Each sets up .venv on first use; PYTHON chooses the interpreter (3.10 or newer), VENV another place.

PYTHON ?= python3
ARGS ?=
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

NUMERIC := tests/losses tests/kernels tests/calibration tests/metrics tests/encoders tests/sentence_transformers

.PHONY: compare test slow numeric resolve check docs install dev clean
.DELETE_ON_ERROR:

compare: install
	$(BIN)/sigmax compare $(ARGS)

test: dev
	$(BIN)/python -m pytest --numprocesses 2 -m "not slow"

slow: dev
	$(BIN)/python -m pytest --numprocesses 2 -m slow

numeric: dev
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 -m "not slow" $(NUMERIC)

resolve: dev
	$(BIN)/python .ci/resolve.py

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

install: $(VENV)/installed
dev: $(VENV)/installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Sigmax needs Python 3.10 or newer, $(PYTHON) is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# torch first: its version is pinned by the constraints, and nothing later may replace it.
$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing Sigmax into $(VENV) (a few minutes the first time)"
	$(PIP) torch
	$(PIP) --editable '.[report]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site
