# `make help` lists what there is; every target sets up what it needs first.
PROFILE ?= laptop
PYTHON ?=
TORCH_INDEX ?=
SOURCE ?= local
TASK ?=
PARITY ?=
SHELL := /bin/bash

# an active conda environment of this project is used as it is
ENV := $(if $(filter uepo,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX),.venv)
PY := $(ENV)/bin/python

# one thread a process (several share the cores), and no look-up on a network
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= $(if $(filter minari,$(SOURCE)),0,1)

.PHONY: help setup reproduce test figures data behaviors lab parity publish lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PROFILE=smoke|laptop|full|paper says how much is computed (now $(PROFILE))"
	@echo "UEPO_WORKERS=N says how many processes compute side by side (else one a core)"

setup:  ## install the pinned packages into .venv, once; PYTHON= and TORCH_INDEX= choose builds
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' scripts/setup.sh '$(ENV)'

reproduce: setup  ## data, models, notebooks, figures; what is finished is kept
	@$(PY) -m uepo_lib reproduce --profile $(PROFILE)

test: setup  ## lint, types, tests, notebook pairs, every notebook at the smoke profile
	@scripts/test.sh '$(PY)'

figures: setup  ## draw the figures again from their tables
	@$(PY) -m uepo_lib figures --profile $(PROFILE)

data: setup  ## collect the local datasets; SOURCE=minari TASK=pen-human downloads one instead
	@$(PY) -m uepo_lib data --profile $(PROFILE) --source $(SOURCE) $(if $(TASK),--task $(TASK))

behaviors: setup  ## train the behaviour policies again (hours)
	@$(PY) -m uepo_lib behaviors

lab: setup  ## open JupyterLab on the first notebook
	@$(PY) -m jupyterlab notebooks/00_start_here.ipynb

parity: setup  ## our BC, IQL and PPO beside d3rlpy's and stable-baselines3's (hours; resumable)
	@TORCH_INDEX='$(TORCH_INDEX)' scripts/parity.sh '$(PY)' $(PARITY)

publish: setup  ## copy results and executed notebooks to where they are committed
	@$(PY) -m uepo_lib publish --profile $(PROFILE)

lock: setup  ## pin what the environment holds in requirements.lock and environment.yml
	@scripts/lock.sh '$(PY)'

clean:  ## remove caches; data, results and the environment stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	@find . -path "./.venv*" -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d \
		-exec rm -rf {} +
