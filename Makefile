# make run | test | lab | bench | site | env: each makes the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= laptop
FLAGS ?=

.PHONY: run test lab bench site env

run: env
	$(BIN)/mipo-nb run --profile $(PROFILE) $(FLAGS)

test: env
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup --durations=20

lab: env
	$(BIN)/jupyter lab --notebook-dir=.

bench: env
	$(BIN)/mipo-nb bench

site: env
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs . site
	@echo "Open site/index.html in a browser."

env: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=python3.11 or newer.") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages (once; some minutes)."
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@
