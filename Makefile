# Each target does its own set-up: a virtual environment for the interpreter that PYTHON names.
#
#   make demo      run real plugins          make bench            compare with the official SDK
#   make test      all tests                 make examples         rebuild the example plugins
#   make fuzz      SECONDS a harness         make hammer           threads, SECONDS a test
#   make check     lint, types, fast tests   make check-examples   …and compare their behaviour
#   make docs      generated pages           make changelog        CHANGELOG.md for RELEASE=1.2.3
#   make layout    figures of the layout     make conformance      plugins of every kit, on every host
#   make kits      checkers of the kits' languages                 make kits-page, conformance-page
#   make engines   interpreters of scripts   make bench-scripts    …and what else runs scripts
#   make figures   bench, for the pages

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv-$(VERSION)
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo environment test conformance engines check lint layout types format docs changelog changelog-draft bench bench-scripts performance examples check-examples fast figures fuzz hammer conformance-page kits kits-page clean

help:
	@sed -n 's/^#   //p' Makefile

# A stamp for each set of extras; it is renewed when the project's requirements change.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "plugwasm needs Python 3.11 or later; name one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/with-%: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[$(subst +,$(comma),$*)]'
	touch $@

comma := ,

demo: $(VENV)/with-cli
	@$(BIN)/python examples/demo.py
	@echo
	@echo 'The same from a shell:'
	@echo
	@echo '$$ $(BIN)/plugwasm call examples/count_vowels.wasm count_vowels --input "Hello, World!"'
	@$(BIN)/plugwasm call examples/count_vowels.wasm count_vowels --input "Hello, World!"
	@echo
	@echo
	@echo 'The command is installed in $(BIN): `. $(BIN)/activate` lets you write `plugwasm` alone, and `plugwasm --help` says what it can do.'

# What `test` and `fast` need.
environment: $(VENV)/with-cli+test

test: $(VENV)/with-cli+test
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

fast: $(VENV)/with-cli+test
	$(BIN)/python -m pytest -n auto -m 'not slow' $(PYTEST_ARGS)

lint: $(VENV)/with-cli+lint+test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/layout.py > /dev/null

layout: $(VENV)/with-cli+lint+test
	@$(BIN)/python tools/layout.py

# Type completeness: every public name has a type that all checkers agree on. The checker finds the package through PATH.
types: $(VENV)/with-cli+lint+test
	$(BIN)/mypy
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/basedpyright --ignoreexternal --verifytypes plugwasm > $(VENV)/types.txt \
		|| { cat $(VENV)/types.txt; exit 1; }
	@grep 'Type completeness' $(VENV)/types.txt

check: lint types fast

format: $(VENV)/with-cli+lint+test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/with-cli
	$(BIN)/python docs/generate.py

changelog: $(VENV)/with-release
	$(BIN)/towncrier build --yes --version $(or $(RELEASE),$(error name the version: make changelog RELEASE=1.2.3))

changelog-draft: $(VENV)/with-release
	@$(BIN)/towncrier build --draft --version unreleased

conformance: $(VENV)/with-build+test
	$(BIN)/python -m conformance $(CONFORMANCE_ARGS)

engines: $(VENV)/with-script
	$(BIN)/python -m plugwasm._script

conformance-page:
	$(MAKE) conformance CONFORMANCE_ARGS="--strict --write"

kits: $(VENV)/with-build+test
	$(BIN)/python -m conformance.checks $(KITS_ARGS)

kits-page: $(VENV)/with-build+test
	$(BIN)/python -m benchmarks.kits

bench: $(VENV)/with-bench
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-scripts: $(VENV)/with-bench-scripts
	$(BIN)/python -m benchmarks.sandboxes $(BENCH_ARGS)

# Needs an idle machine: README.md and benchmarks/README.md show what this run measures.
figures: $(VENV)/with-bench
	$(BIN)/python -m benchmarks --publish $(BENCH_ARGS)

performance: $(VENV)/with-bench
	$(BIN)/python -m benchmarks.growth $(BENCH_ARGS)

SECONDS ?= 20

fuzz: $(VENV)/with-fuzz+test
	$(BIN)/python -m fuzz --seconds $(SECONDS) $(FUZZ_ARGS)

hammer: $(VENV)/with-test
	PLUGWASM_HAMMER_SECONDS=$(SECONDS) $(BIN)/python -m pytest tests/hammer $(PYTEST_ARGS)

examples: $(VENV)/with-examples
	$(BIN)/python examples/build.py

check-examples: $(VENV)/with-examples
	$(BIN)/python examples/verify.py

clean:
	rm -rf .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
