# `make help` lists the targets: those with two hashes for users, those with a hash and a colon for developers.

PYTHON ?= python3
CONFIG ?= configs/default.toml
ARGS   ?=
HOST   ?=
IMAGE  ?= mnist-tfx:0.1.0
VENV   := .venv/bin

# `make pipeline train.steps=5` would only set a variable of make, which nothing reads.
$(foreach name,$(.VARIABLES),$(if $(findstring .,$(name)),$(if $(filter command,$(origin $(name))),\
  $(error $(name) is a setting, not a variable of make: make $(MAKECMDGOALS) ARGS="--set $(name)=$($(name))"))))

.DEFAULT_GOAL := help
.PHONY: help setup lock protos pipeline report serve query validate stop gc doctor tensorboard kubeflow kubeflow-submit image test test-unit \
  test-containers lint coverage bench drills clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-15s %s\n", $$1, $$2}'
	@echo
	@echo "Options:  make pipeline CONFIG=configs/quick.toml"
	@echo "          make pipeline ARGS='--set train.steps=500 --home DIR'"
	@echo
	@echo "To work on the project:"
	@grep -hE '^[a-z-]+:.*#: ' $(MAKEFILE_LIST) | awk -F ':.*#: ' '{printf "make %-15s %s\n", $$1, $$2}'

setup: ## Create .venv from requirements.lock; all others do so first
	@$(PYTHON) tools/setup.py

pipeline: setup ## Run it all: data, statistics, training, evaluation, push
	@$(VENV)/python -m pipeline run --config $(CONFIG) $(ARGS)

report: setup ## Write the page of the latest run, and open or name it
	@$(VENV)/python -m pipeline report $(ARGS)

serve: setup ## Serve the pushed model: in a container, else embedded
	@$(VENV)/python -m serving up $(ARGS)

query: setup ## Send test images to the running server, over gRPC and REST
	@$(VENV)/python -m serving query --rest $(ARGS)

validate: setup ## Prove that the served model is the blessed one, unchanged
	@$(VENV)/python -m pipeline validate $(ARGS)

stop: setup ## Stop the server
	@$(VENV)/python -m serving down $(ARGS)

gc: setup ## Remove artifacts and logs of older runs (home.keep_runs)
	@$(VENV)/python -m pipeline gc --config $(CONFIG) $(ARGS)

tensorboard: setup ## Show the learning curves of all runs in TensorBoard
	@$(VENV)/python -m pipeline tensorboard $(ARGS)

doctor: ## Check machine, packages, data and home: what to repair
	@$(or $(wildcard $(VENV)/python),$(PYTHON)) -m pipeline doctor $(ARGS)

kubeflow: setup ## Compile for Kubeflow Pipelines: IMAGE=name:tag
	@$(VENV)/python -m pipeline compile --config $(CONFIG) --set kubeflow.image=$(IMAGE) $(ARGS)

kubeflow-submit: kubeflow ## Compile, run at HOST=http://..., wait until the run ends
	@$(VENV)/python -m pipeline submit --wait $(if $(HOST),--host $(HOST))

image: ## Build the image of the Kubeflow tasks: IMAGE=name:tag
	@for engine in docker podman; do \
	  if $$engine info >/dev/null 2>&1; then exec $$engine build --tag $(IMAGE) $(ARGS) .; fi; \
	done; echo "image: neither docker nor podman is running; run this command on a machine that has one" >&2; exit 5

test: setup #: Run all tests, up to 4 files at a time
	@$(VENV)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-unit: setup #: Run the unit tests only (seconds)
	@$(VENV)/python -m pytest tests/unit $(ARGS)

test-containers: setup #: Test with docker or podman (about ten minutes)
	@$(VENV)/python -m tests.containers

lint: setup #: ruff, mypy (strict) and the import contracts
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports --no-cache

coverage: setup #: Run all tests and report line coverage
	@rm -f .coverage .coverage.*
	@$(VENV)/coverage run -m pytest $(ARGS)
	@$(VENV)/coverage combine -q
	@$(VENV)/coverage report

bench: setup #: Run all benchmarks (more than an hour), update the docs
	@$(VENV)/python -m benchmarks.first_run
	@$(VENV)/python -m benchmarks.tfx_example $(ARGS)
	@$(VENV)/python -m benchmarks.significance
	@for name in load swaps drain soak rollback; do $(VENV)/python -m benchmarks.serving.$$name || exit; done
	@for name in speed memory resume scores; do $(VENV)/python -m benchmarks.training.$$name || exit; done
	@$(VENV)/python -m benchmarks.pages

drills: setup #: Inject faults, kill 200 runs (an hour or more)
	@$(VENV)/python -m tests.drills $(ARGS)
	@$(VENV)/python -m tests.drills.kills
	@$(VENV)/python -m tests.drills.interrupts
	@$(VENV)/python -m tests.drills.server
	@$(VENV)/python -m tests.drills.server.overload
	@$(VENV)/python -m tests.drills.server.memory
	@$(VENV)/python -m tests.drills.server.fuzz

lock: setup #: Resolve all dependencies again, write requirements.lock
	@$(VENV)/python tools/lock.py

protos: setup #: Generate serving/protocol/serving_pb2.py from serving.proto
	@$(VENV)/python -m grpc_tools.protoc -I serving/protocol --python_out=serving/protocol --pyi_out=serving/protocol serving.proto

clean: ## Remove .venv, caches and build output; the workspace stays
	@rm -rf .venv .setup.lock build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* *.egg-info
