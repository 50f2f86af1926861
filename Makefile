# `make quickstart` trains a small model and writes a report; `make test` runs every check; `make model` retrains
# the model common_test in lensjax/trained. All create .venv and install the requirements. To use another Python:
# make PYTHON=python3.12 quickstart

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test model install install-test clean

quickstart: install
	$(BIN)/python -m lensjax.main --config configs/lens_fit.py:quick

test: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

model: install
	$(BIN)/python -m lensjax.main --config configs/lens_fit.py:common_test --workdir runs/common_test
	$(BIN)/python tools/export.py --workdir runs/common_test --format safetensors \
	  --output lensjax/trained/common_test.safetensors --overwrite

install: $(VENV)/.installed

install-test: $(VENV)/.installed-test

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lensjax requires Python 3.11 or newer; select it with make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[test]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
