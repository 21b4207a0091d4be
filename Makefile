# Everything happens in a virtual environment of this folder; nothing else is touched.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
# The CPU build; elsewhere, name the build that fits the machine.
TORCH  ?= torch==2.13.0
STAMP  := $(VENV)/.installed
# Two workers take files in their order: the many small ones come last, so that neither waits for the other.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make the virtual environment with both frameworks

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)" -e ".[torch,mindspore,onnx,plots,examples,dev]"
	touch $@

demo: $(STAMP)  ## train the character GPT on both frameworks, draw the curves, write the conformance report
	$(BIN)/python examples/demo.py

test: $(STAMP)  ## run the tests, but those marked slow: about 15 minutes on two cores
	$(PYTEST) -m "not slow"

test-all: $(STAMP)  ## run every test
	$(PYTEST)

check: $(STAMP)  ## ruff, mypy, and the lint that keeps core/ traceable
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/core/test_lint.py

clean:  ## remove what the commands made
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
