# Everything a fresh machine needs. `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
# The torch to install: the CPU build where there is no NVIDIA GPU, the registry's CUDA build otherwise.
TORCH  ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo 'torch>=2.11' || echo 'torch==2.13.0')
STAMP   = $(VENV)/.installed
# Bytecode is written where a module is first imported; all of it beforehand takes long.
INSTALL = $(BIN)/python -m pip install --quiet --no-compile

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench clean

help:    ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(STAMP): pyproject.toml kernels/CMakeLists.txt $(shell find kernels/cpp -type f 2>/dev/null)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(BIN)/python -c 'import torch' 2>/dev/null || $(INSTALL) "$(TORCH)"
	$(INSTALL) -e '.[dev]'
	touch $@

setup: $(STAMP)   ## create .venv, install, build the native kernels

demo: $(STAMP)    ## the main job on the embedded model: RetroInfer beside full attention
	$(BIN)/python run.py -m method=full,retroinfer

# Two workers of one thread each: the tests are many and small. Their processes find bytecode: compiling what one imports takes four seconds.
test: $(STAMP)    ## the whole test suite
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)    ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy kernels/bench scripts experiments

format: $(STAMP)  ## let ruff write the format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)   ## kernel benchmarks, ratios measured in one run; goes on where it stopped. ARGS="--tokens 16384", ARGS=--quick
	$(BIN)/python kernels/bench/run.py $(ARGS)

clean:            ## remove what was built
	rm -rf build $(VENV)
