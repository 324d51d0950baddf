.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEV := .venv/.dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# extras of the package for everything but its development; EXTRAS= installs what training needs
EXTRAS ?= eval,judge,serve,curate
# another package index for torch alone, such as that of its builds without CUDA
INDEX ?=
# caches of the libraries stay in the clone
export MPLCONFIGDIR := $(CURDIR)/.venv/cache/matplotlib
export HF_HOME := $(CURDIR)/.venv/cache/huggingface
export TORCHINDUCTOR_CACHE_DIR := $(CURDIR)/.venv/cache/inductor
# compiled modules are written, also where the environment forbids it: many tests start programs
export PYTHONDONTWRITEBYTECODE :=

help: ## show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the pinned dependencies (once); INDEX=<url> takes torch from another index
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(if $(INDEX),$(PIP) --no-deps --index-url "$(INDEX)" $(shell grep -E '^torch(vision|audio)?==' requirements.txt))
	$(PIP) --constraint requirements.txt --editable ".$(if $(EXTRAS),[$(EXTRAS)])"
	touch $@

$(DEV): $(READY)
	$(PIP) --requirement requirements.txt
	touch $@

check: $(DEV) ## lint, types, import directions (seconds)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# one thread for each worker: more of them wait for each other on few cores
test: $(DEV) ## the whole test suite (minutes)
	@mkdir -p .venv/cache
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --basetemp=.venv/cache/pytest

test-slow: $(DEV) ## the long trainings, tests of many processes and repetitions (minutes)
	@mkdir -p .venv/cache
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder --basetemp=.venv/cache/pytest

faults: $(DEV) ## trainings that are killed and stopped at random moments (an hour; FAULTS_KILLS=5 for fewer)
	@mkdir -p .venv/cache
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults --basetemp=.venv/cache/faults

combinations: $(READY) ## a forward pass of every swap and combination of parts (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python experiments/composition/combinations.py

scale: $(READY) ## the losses of every stage on 1, 2 and 4 processes (an hour; goes on where it was stopped)
	OMP_NUM_THREADS=1 $(BIN)/python experiments/scale/measure.py

train: $(READY) ## HumanOmni's first stage at nano size, from nothing
	$(BIN)/python -m omnihuman.train +experiment=humanomni_stage1

# four frames a clip; two studies at a time, one thread each (on few cores threads wait for each other), longest first
SEEDS := 1
STUDIES := humanomni_branches favchat_ablation omni_emotion_modality omni_emotion_fusion humanomni_modality
reproduce: $(READY) ## the papers' five tables in miniature, from nothing; SEEDS=3: with verdicts
	@seeds=$$(seq 42 $$((41 + $(SEEDS))) | paste -sd, -); \
	echo $(STUDIES) | xargs -n 1 -P 2 sh -c "$(BIN)/python -m omnihuman.study \$$0 'seeds=[$$seeds]' threads=1 -- frames=4"; failed=$$?; \
	$(BIN)/python -m omnihuman.report "study=[$$(echo $(STUDIES) | tr ' ' ',')]" write=true \
	  results=experiments/RESULTS.md && exit $$failed

docs: $(DEV) ## the guide and the API reference, as a site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean: ## remove the environment, caches and builds; runs/ and data/ stay
	rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup check test test-slow faults combinations scale train reproduce docs clean
