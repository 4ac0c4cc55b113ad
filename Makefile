# ig3d: every target sets up what it needs in .venv and does not redo what is done.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

DATASET ?= folder
ROOT ?= data/$(DATASET)
REGRESSOR ?= facemesh
OUT ?= out/$(DATASET)-$(REGRESSOR).h5
ARGS ?=
DEMO ?= demo

.PHONY: help setup demo test test-clusters check check-full check-oldest lint types docs docs-site extract bench bench-faults clean

help:  ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo "  make extract DATASET=rafdb [ROOT=data/rafdb REGRESSOR=facemesh OUT=out/rafdb-facemesh.h5 ARGS='--jobs 4']"

setup: $(READY)  ## Make .venv with everything and fetch the face networks (several GB with CUDA; some minutes, once)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ig3d: needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1); choose another with: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --constraint requirements.lock --editable '.[all,dev]'
	@# face-alignment asks for opencv-python, which needs X libraries: the headless one takes its files' place
	@$(PIP) --constraint requirements.lock --no-deps --force-reinstall opencv-python-headless
	@mkdir -p $(VENV)/mypy && ln -sfn ../.. $(VENV)/mypy/ig3d
	@$(BIN)/ig3d weights get facemesh > /dev/null
	@touch $@

demo: $(READY)  ## The whole job on synthetic faces, offline: synth, train-2d, logits, extract, fuse, preview
	@BIN=$(BIN) scripts/demo.sh $(DEMO)

test: $(READY)  ## Run the tests, one process per core
	@$(BIN)/python -m pytest -q -n auto --dist loadfile $(ARGS)

check-oldest: $(OLDEST)/.ready  ## Tests that need no torch, with the lowest versions of all dependencies (Python 3.11)
	@$(OLDEST)/bin/python -m pytest -q -n auto --dist loadfile -W ignore::DeprecationWarning $(ARGS)

# their newest dependencies warn about them: DeprecationWarning is no error here
$(OLDEST)/.ready: pyproject.toml scripts/lowest_versions.py
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python scripts/lowest_versions.py extract report parquet remote dev > $(OLDEST)/lowest.txt
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $(OLDEST)/lowest.txt
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(OLDEST)/bin/ig3d weights get facemesh > /dev/null
	@touch $@

test-clusters: $(READY)  ## The dask and ray backends, whose packages set-up leaves out (200 MB)
	@$(PIP) --constraint requirements.lock --editable '.[dask,ray]'
	@$(BIN)/python -m pytest -q tests/test_extract_workers.py tests/test_workers.py $(ARGS)

check: lint types docs test  ## Everything CI runs: ruff, mypy, docs, tests

# The slow proofs: add what takes minutes or large packages here, not to check.
check-full: check docs-site test-clusters bench-faults  ## check, then the docs site, dask and ray, a hundred kills, a full disk, 2,000 damaged inputs (half an hour)
	@$(BIN)/python benchmarks/fuzz_inputs.py --count 2000
	@$(BIN)/python scripts/simulate_claims.py --datasets 6 --check
	@IG3D_ALL_PHOTOGRAPHS=1 $(BIN)/python -m pytest -q tests/test_extract_facemesh_networks.py

lint: $(READY)  ## Style and formatting (ruff)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)  ## Types (mypy)
	@$(BIN)/mypy

docs: $(READY)  ## Links, commands and options named in README and docs exist; words follow the house style
	@$(BIN)/python scripts/check_docs.py
	@$(BIN)/python scripts/check_words.py

docs-site: $(READY)  ## The documentation as a site in site/ (installs mkdocs-material); broken links are errors
	@$(PIP) --constraint requirements.lock --editable '.[docs]'
	@DEMO=$(DEMO) NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html"

extract:  ## Codes of a dataset: DATASET=rafdb|folder|manifest, images under ROOT
	@test -e "$(ROOT)" || { echo "ig3d: $(DATASET): no dataset at $(ROOT); put it there, or give its place: make extract DATASET=$(DATASET) ROOT=/path/to/it (layouts: docs/datasets.md)" >&2; exit 1; }
	@$(MAKE) --silent $(READY)
	@mkdir -p "$(dir $(OUT))"
	@$(BIN)/ig3d extract "$(ROOT)" --dataset "$(DATASET)" --regressor "$(REGRESSOR)" --out "$(OUT)" $(ARGS)

bench: $(READY)  ## Measured ratios (benchmarks/README.md)
	@for script in $(filter-out benchmarks/bench_faults.py,$(wildcard benchmarks/bench_*.py)); do $(BIN)/python $$script; done

bench-faults: $(READY)  ## A hundred kills and a full disk: every store equals the undisturbed one
	@$(BIN)/python benchmarks/bench_faults.py $(ARGS)

clean:  ## Remove caches and builds (not .venv, not data)
	@rm -rf build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
