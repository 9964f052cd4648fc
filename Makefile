# What a newcomer needs: `make demo` and `make test`. Both make their own environment.
#
#   make demo     run a real parameter sweep and show it (KEEP=1 leaves the service running)
#   make test     run every test (TESTS=tests/unit ARGS="-k queue" for fewer)
#   make lint     check style; `make format` repairs it
#   make types    check types
#   make soak     random operations and kills for MINUTES=1, checked against a model
#   make sabotage break one mechanism at a time; its test must turn red
#   make bench    measure against this machine's own limit, in ratios (build/bench.json)
#   make docs     check that the code blocks in README and docs run
#   make clean    remove everything that was made here

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lint format types soak sabotage bench docs clean

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet
KEEP ?=
MINUTES ?=
TESTS ?=
ARGS ?=

help:
	@sed -n 's/^#   //p' Makefile

$(PYTHON):
	@.ci/environment $(VENV)

# One stamp for each set of requirements; a repeat costs nothing.
$(VENV)/demo.stamp: pyproject.toml | $(PYTHON)
	@echo "Installing Simyard and what the example needs into $(VENV) …"
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml | $(PYTHON)
	@echo "Installing Simyard and what its tests need into $(VENV) …"
	@$(PIP) install --editable '.[test]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(PYTHON)
	@echo "Installing Simyard and its development tools into $(VENV) …"
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/test.stamp

demo: $(VENV)/demo.stamp
	@$(PYTHON) examples/microstrip/demo.py $(if $(filter-out 0,$(KEEP)),--keep)

test: $(VENV)/test.stamp
	$(PYTHON) -m pytest -rs $(ARGS) $(TESTS)

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The whole package and everything around it with mypy, the public face with pyright.
types: $(VENV)/dev.stamp
	$(VENV)/bin/mypy -p simyard
	$(VENV)/bin/mypy tests examples
	$(VENV)/bin/pyright __init__.py errors.py handler

soak: $(VENV)/test.stamp
	PYTHONPATH=typings $(PYTHON) tests/faults/soak.py --minutes $(or $(MINUTES),1) $(ARGS)

sabotage: $(VENV)/test.stamp
	$(PYTHON) tests/sabotage.py $(ARGS)

bench: $(VENV)/test.stamp
	$(PYTHON) tests/benchmarks/bench.py --output build/bench.json $(ARGS)

docs: $(VENV)/test.stamp
	$(PYTHON) -m pytest -rs tests/unit/test_docs.py $(ARGS)

clean:
	rm -rf build dist ./*.egg-info $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
