# SPDX-License-Identifier: Apache-2.0
# make prove    set up what is missing, build, boot, measure: report.html and results.json
# make test     every test, lint, types, the kernel checks
# make stress   the long forms, on kernels that look for errors; SHORT=1: some minutes, on one such kernel
# make setup    only what is missing: packages (as root) and the Python environment
# make lint     ruff, mypy, import-linter, shellcheck
# make clean    removes the Python environment and the results; the cache: cvmtune lab clean

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# Tests that need a program must not pass by skipping where we have just installed it.
export CVMTUNE_REQUIRE_TOOLS := 1

.PHONY: help prove test stress lint setup packages clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: packages $(VENV)/.ready

packages:
	@scripts/install-packages

$(VENV)/.ready: pyproject.toml
	@echo "Python environment: $(VENV), with what pyproject.toml names"
	@$$(scripts/find-python) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

prove: setup
	$(BIN)/cvmtune prove --json results.json --html report.html

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	shellcheck scripts/* .ci/run src/cvmtune/lab/guest/init

test: lint
	$(BIN)/cvmtune lab kernel check
	$(BIN)/pytest tests/unit tests/contract -m 'not stress' -n auto --dist worksteal
	$(BIN)/pytest tests/vm -m 'not stress'

stress: setup
	$(BIN)/pytest tests/contract tests/vm -m stress $(if $(SHORT),--short) -s

clean:
	rm -rf $(VENV) report.html results.json
