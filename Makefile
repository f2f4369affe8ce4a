# `make help` lists the targets. Nothing has to be done before `make demo` or `make test`.
VENV ?= .venv
PYTHON ?= python3
# What FFCV's build needs, and the package that holds the original Fashion-MNIST files.
PACKAGES = g++ python3-dev python3-venv pkg-config libopencv-dev libturbojpeg0-dev dataset-fashion-mnist
TEST_PACKAGES = chromium postgresql
RUN = PATH="$(abspath $(VENV))/bin:$$PATH"
# Tests of several processes have more threads than cores: a thread that waits must not spin.
PYTEST = $(RUN) OMP_WAIT_POLICY=PASSIVE python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup packages demo mlflow dashboard bench lint test test-all clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

mlflow: setup ## open the MLflow UI on 127.0.0.1
	@$(RUN) sh -c "$$($(VENV)/bin/miyagi track ui)"

dashboard: setup ## open optuna-dashboard on the latest sweep on 127.0.0.1; E=EXPERIMENT: on that one's
	@$(RUN) miyagi dashboard $(E)

bench: setup ## speed beside lightly and torchvision -> docs/benchmarks.md; IMAGES=FOLDER: on your own pictures
	@$(RUN) python -m benchmarks $(if $(IMAGES),--images "$(IMAGES)")

lint: setup ## ruff, mypy, import contracts
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports

test: setup ## every unit, and one real path through each tool
	@sh tools/packages.sh $(TEST_PACKAGES)
	$(PYTEST) -m "not slow and not gpu"

test-all: test ## the rest as well: the demo on the real data, every command of the README
	$(PYTEST) -m "slow and not gpu"

clean: ## delete what a run wrote; the DVC cache and the MLflow store stay
	rm -rf .miyagi/train .miyagi/studies data/betons runs reports
