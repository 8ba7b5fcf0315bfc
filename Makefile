# make demo | run | test | test-all | smoke | lab | bench | site | slides | env: each makes the environment first; and
# make gpu-check, which takes the one that is there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= laptop
FLAGS ?=

.PHONY: demo run test test-all smoke lab bench gpu-check site slides env

PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadgroup

run: env
	$(BIN)/mipo-nb run --profile $(PROFILE) $(FLAGS)

# A first result in a minute: people answered before and after training.
demo: env
	$(BIN)/mipo-nb demo

# What finds faults soon: all pure tests, the model tests of the method and the engine, a few whole notebooks.
test: env
	$(PYTEST) -m "not whole" --durations=10

test-all: env
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[harness]'  # a public reference for scores
	$(PYTHON) -m venv $(VENV)/nbgrader  # marks a class in a test, from an environment of its own
	$(VENV)/nbgrader/bin/python -m pip install --quiet 'nbgrader==0.9.6'
	$(PYTEST) --durations=20

# Smoke runs of the notebooks that changed since they last passed (tests/notebooks/passed.json), and of no others.
smoke: env
	$(PYTEST) --changed tests/notebooks/test_smoke.py

lab: env
	$(BIN)/jupyter lab --notebook-dir=.

bench: env
	$(BIN)/mipo-nb bench

# Ten minutes on a machine with CUDA: tests, then speed and memory on random weights. It installs nothing and needs no
# network. Without a .venv it runs by PYTHON; FLAGS="--wheels folder" adds what that lacks, such as trl and bitsandbytes.
gpu-check:
	$(if $(wildcard $(VENV)/.complete),$(BIN)/python,$(PYTHON)) -m mipo_nb.command.gpu_check $(FLAGS)

site: env
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs . site
	@echo "Open site/index.html in a browser."

# The slides of the 90-minute route. Once npm has fetched reveal.js for them, no network is needed.
slides: env
	$(BIN)/python -m mipo_nb.course.slides build/slides

env: $(VENV)/.complete

# Without PYTHONWARNINGS setuptools warns of an installation that is as it should be.
$(VENV)/.complete: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=python3.11 or newer.") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages (once; some minutes)."
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@
