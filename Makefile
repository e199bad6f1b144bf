# make demo | test | test-slurm | test-gpu | resume | prune | ask     (README.md says what each does)
.DEFAULT_GOAL := demo
.PHONY: demo test test-slurm test-gpu lint resume prune ask lock

PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= config/config.yaml
CORES ?= all
export PYTHONPATH := workflow/scripts
export OMP_WAIT_POLICY := PASSIVE
# make resume PROFILE=slurm CONFIG=config/real.yaml SET=limit=32 goes on with the run that was started like that.
SNAKEMAKE := $(BIN)/snakemake $(if $(PROFILE),--profile $(PROFILE),--cores $(CORES)) --configfile $(CONFIG) $(if $(SET),--config $(SET))

.venv/made: requirements.lock
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Imprint needs Python 3.11 or newer; write make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

demo: .venv/made
	$(SNAKEMAKE) --quiet rules progress host

lint: .venv/made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

# Two processes, a file to each: the workflow tests share one finished run.
test: lint
	$(BIN)/pytest -n 2 --dist loadfile --ignore tests/slurm --ignore tests/gpu

# A Slurm of one node with stand-in GPUs is started, used and stopped; needs root and, the first time, Debian's mirror.
# Two processes: while Slurm's jobs are waited for, the faults of one machine are put to another copy.
test-slurm: .venv/made
	tests/slurm/cluster.sh install
	$(BIN)/pytest -n 2 --dist loadfile --durations=12 tests/slurm

# Where a GPU is, and a torch for it: the paths on it against the CPU.
test-gpu: .venv/made
	$(BIN)/pytest tests/gpu

# After a kill: end what it left running, unlock, run again. Nothing finished is done twice, no process of another run is ended.
resume: .venv/made
	$(BIN)/python -m imprint.resume --configfile $(CONFIG) $(if $(SET),--config $(SET))
	$(SNAKEMAKE) --rerun-incomplete --quiet rules progress host

# Lists what no config under config/ needs any more; `make prune DELETE=1` deletes it.
prune: .venv/made
	$(BIN)/python -m imprint.prune $(if $(DELETE),--delete)

# make ask ARM=self_prompt Q="How do I keep basil alive?"     (the question goes through the environment, as it is)
# Make would expand ARM and Q as it exports them, and run a $(shell ...) in a question; so they are not exported.
unexport ARM Q
ask: export ASKED_ARM := $(value ARM)
ask: export ASKED := $(value Q)
ask: .venv/made
	@$(BIN)/python -m imprint.ask --config $(CONFIG) -- "$$ASKED_ARM" "$$ASKED"

# Pins anew from pyproject.toml (torch's own GPU packages stay unpinned: they differ from build to build).
lock:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet . --group test
	$(BIN)/pip freeze --exclude imprint | grep -v -e '^nvidia-' -e '^triton==' -e '^cuda-' | sed 's/+cpu$$//' > requirements.lock
