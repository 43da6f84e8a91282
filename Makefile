# Two environments: .venv to learn in (torch and all), .venv-serving for the servers (small, numpy 1, no torch).
# Everything is made from nothing; a stamp in each environment makes the next run quick.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= 3.11
UV ?= $(shell command -v uv 2>/dev/null || echo .venv-tools/bin/uv)
PYTEST := .venv/bin/pytest
# Processes that share the fast tests, a file at a time; what starts servers has the machine to itself.
WORKERS ?= 2
# Shared runners have few cores, and the small matrices of tests gain nothing from more.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help setup native demo demo-week test lint test-fast test-e2e redis-server clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: .venv/.stamp .venv-serving/.stamp native ## make both environments

.venv-tools/bin/uv:
	@echo "uv is missing: getting it by pip into .venv-tools"
	python3 -m venv .venv-tools
	.venv-tools/bin/pip install --quiet --disable-pip-version-check uv

.venv/.stamp: pyproject.toml | $(filter .venv-tools/%,$(UV))
	@test -x .venv/bin/python || $(UV) venv --quiet --python $(PYTHON) .venv
	$(UV) pip install --quiet --python .venv/bin/python --editable '.[train,streaming,confluent,dev]'
	@touch $@

# nvidia-pytriton is wanted for the tritonserver binary in its wheel only, so it comes without what it depends on.
# What is built for the stub's Python must be numpy 1: under numpy 2 it makes empty tensors without a word.
.venv-serving/.stamp: pyproject.toml deploy/serving-requirements.txt | $(filter .venv-tools/%,$(UV))
	@test -x .venv-serving/bin/python || $(UV) venv --quiet --python $(PYTHON) .venv-serving
	$(UV) pip install --quiet --python .venv-serving/bin/python --editable . \
	    --constraint deploy/serving-requirements.txt
	$(UV) pip install --quiet --python .venv-serving/bin/python --no-deps \
	    --requirement deploy/serving-requirements.txt
	@touch $@

# Both environments share what is built here. Where there is no compiler, a Python package brings one; where that
# cannot be had either, searches run on the ONNX graph.
native: .venv/.stamp ## build the native search (seconds; again only when its sources changed)
	@command -v "$${CXX:-g++}" >/dev/null || command -v clang++ >/dev/null || .venv/bin/python -c "import ziglang" 2>/dev/null \
	  || { echo "no C++ compiler here: getting the package ziglang"; \
	       $(UV) pip install --quiet --python .venv/bin/python ziglang || true; }
	@.venv/bin/python -m onesearch_seq2seq.native.build

# For the tests of the state store in Redis, which run against a real server, and are skipped where none can be had.
redis-server:
	@command -v redis-server >/dev/null || { \
	  as_root=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); install="$$as_root apt-get install --yes --quiet=2 redis-server"; \
	  export DEBIAN_FRONTEND=noninteractive; echo "redis-server is missing: getting it by apt"; \
	  { $$install || { $$as_root apt-get update --quiet=2 && $$install; }; } >/dev/null 2>&1 \
	    || echo "redis-server cannot be had here: tests that need it will be skipped"; }

demo: setup ## from nothing to a search engine that answers, in minutes
	.venv/bin/onesearch demo

demo-week: setup ## the same with seven nights of learning
	.venv/bin/onesearch demo --nights 7

lint: .venv/.stamp ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test-fast: .venv/.stamp native redis-server ## unit and property tests
	$(PYTEST) -q -m "not e2e" -n $(WORKERS) --dist loadfile

test-e2e: setup ## tests that start the real servers
	$(PYTEST) -q -m e2e

test: setup lint test-fast test-e2e ## everything that must hold, quick parts first

clean: ## remove the environments, caches and what the demo made
	rm -rf .venv .venv-serving .venv-tools var .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
