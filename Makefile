# make compare   train every loss on the built-in emoji set, print the comparison
# make test      run the tests: six minutes on two cores
# make slow      run the tests that take longer
# make check     formatting, lint and types
# make docs      the documentation, into site/
# ARGS go to sigmax compare, for example: make compare ARGS="my.csv --output runs/mine"
# Each sets up .venv on first use; PYTHON chooses the interpreter (3.10 or newer).

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: compare test slow check docs install dev clean
.DELETE_ON_ERROR:

compare: install
	$(BIN)/sigmax compare $(ARGS)

test: dev
	$(BIN)/python -m pytest --numprocesses 2 -m "not slow"

slow: dev
	$(BIN)/python -m pytest --numprocesses 2 -m slow

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

install: .venv/installed
dev: .venv/installed-dev

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Sigmax needs Python 3.10 or newer, $(PYTHON) is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

# torch first: its version is pinned by the constraints, and nothing later may replace it.
.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing Sigmax into .venv (a few minutes the first time)"
	$(PIP) torch
	$(PIP) --editable '.[report]'
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist site
