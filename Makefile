# `make help` lists the targets. Nothing has to be done before `make demo` or `make test`.
VENV ?= .venv
PYTHON ?= python3
# What FFCV's build needs, and the package that holds the original Fashion-MNIST files.
PACKAGES = g++ python3-dev python3-venv pkg-config libopencv-dev libturbojpeg0-dev dataset-fashion-mnist
TEST_PACKAGES = chromium postgresql
RUN = PATH="$(abspath $(VENV))/bin:$$PATH"
# Tests of several processes have more threads than cores: a thread that waits must not spin.
# Tests share the cores, a file a worker; what looks at the clock has the machine to itself.
WORKERS = -n auto --dist loadfile
PYTEST = $(RUN) OMP_WAIT_POLICY=PASSIVE python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup packages demo flow cluster-up cluster-down dashboard bench zoo lint test test-all

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## make .venv and install everything, system packages included where apt may

packages:
	@sh tools/packages.sh $(PACKAGES)

$(VENV)/installed: requirements.txt pyproject.toml | packages
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: setup ## pretrain, evaluate and report on real images: `dvc repro` with params.yaml
	@$(RUN) miyagi check
	@$(RUN) dvc repro
	@$(RUN) miyagi summary

flow: setup ## the same as `dvc repro`, many stages at once; ARGS="--dry-run" prints the plan
	@$(RUN) python -m flows.pipeline $(ARGS)

cluster-up: setup ## Postgres, MLflow, Prefect and two workers on 127.0.0.1: docs/cluster.md
	@sh tools/packages.sh postgresql
	@$(RUN) python -m flows.services up

cluster-down: setup ## end them, and delete all but their logs
	@$(RUN) python -m flows.services down

dashboard: setup ## open optuna-dashboard on the latest sweep on 127.0.0.1; E=EXPERIMENT: on that one's
	@$(RUN) miyagi dashboard $(E)

bench: setup ## speed beside lightly and torchvision -> docs/benchmarks.md; IMAGES=FOLDER: on your own pictures
	@$(RUN) python -m benchmarks $(if $(IMAGES),--images "$(IMAGES)")

zoo: setup ## every method at one small scale -> docs/methods.md; IMAGES=FOLDER: on your own pictures, in colour
	@$(RUN) python -m benchmarks.zoo $(if $(IMAGES),--images "$(IMAGES)")

lint: setup ## ruff, mypy, import contracts
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports

test: setup ## every unit, and one real path through each tool
	@sh tools/packages.sh $(TEST_PACKAGES)
	$(PYTEST) $(WORKERS) -m "not slow and not gpu and not integration"
	$(PYTEST) $(WORKERS) -m "integration and not slow and not gpu"

test-all: test ## the rest as well: the demo on the real data, every command of the README
	$(PYTEST) $(WORKERS) --no-loadscope-reorder -m "slow and not gpu and not integration"
	$(PYTEST) -m "slow and not gpu and integration and alone"
	$(PYTEST) $(WORKERS) --no-loadscope-reorder -m "slow and not gpu and integration and not alone"
