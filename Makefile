# The front door. `make help` lists what there is.

PYTHON ?= python3
CONFIG ?= configs/default.toml
ARGS   ?=
HOST   ?=
IMAGE  ?= mnist-tfx:0.1.0
VENV   := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup lock protos pipeline serve query validate stop kubeflow kubeflow-submit image test test-unit lint coverage bench drills clean

help: ## Show this list
	@echo "make pipeline   run the whole pipeline on the real MNIST"
	@echo "make test       run all tests"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'
	@echo
	@echo "  CONFIG=configs/quick.toml   another configuration"
	@echo "  ARGS='--set train.steps=500 --home DIR'   options passed on"

setup: ## Create .venv from requirements.lock (a no-op when it is up to date)
	@$(PYTHON) tools/setup.py

pipeline: setup ## Run the DAG: data, statistics, training, evaluation, push
	@$(VENV)/python -m pipeline run --config $(CONFIG) $(ARGS)

serve: setup ## Start a server on the pushed model (a container if an engine answers, else embedded)
	@$(VENV)/python -m serving up $(ARGS)

query: setup ## Ask the running server about test digits, over gRPC and REST
	@$(VENV)/python -m serving query --rest $(ARGS)

validate: setup ## Prove that the served model is the one that was blessed
	@$(VENV)/python -m pipeline validate $(ARGS)

stop: setup ## Stop the server
	@$(VENV)/python -m serving down $(ARGS)

kubeflow: setup ## Compile the DAG for Kubeflow Pipelines (build/pipeline.yaml); IMAGE=registry/name:tag
	@$(VENV)/python -m pipeline compile --config $(CONFIG) --set kubeflow.image=$(IMAGE) $(ARGS)

kubeflow-submit: kubeflow ## Compile, run on Kubeflow Pipelines at HOST=http://..., and wait for the end
	@$(VENV)/python -m pipeline submit --wait $(if $(HOST),--host $(HOST))

image: ## Build the image of the Kubeflow tasks (docker or podman): IMAGE=registry/name:tag
	@engine=$$(command -v docker || command -v podman) || { \
	  echo "image: neither docker nor podman is here; build where one is, with the same command" >&2; exit 5; }; \
	"$$engine" build --tag $(IMAGE) .

test: setup ## Run all tests (unit, integration, end to end), up to 4 files at a time, end-to-end first
	@$(VENV)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-unit: setup ## Run the unit tests only (seconds)
	@$(VENV)/python -m pytest tests/unit $(ARGS)

lint: setup ## ruff, mypy (strict) and the import contracts
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports --no-cache

coverage: setup ## Run all tests and report line coverage, child processes included
	@rm -f .coverage .coverage.*
	@$(VENV)/coverage run -m pytest $(ARGS)
	@$(VENV)/coverage combine -q
	@$(VENV)/coverage report

bench: setup ## Run all benchmarks (more than an hour); write docs/benchmarks.md and the first run of README.md
	@$(VENV)/python -m benchmarks.first_run
	@$(VENV)/python -m benchmarks.tfx_example $(ARGS)
	@for name in load swaps drain soak rollback; do $(VENV)/python -m benchmarks.serving.$$name || exit; done
	@for name in speed memory resume scores; do $(VENV)/python -m benchmarks.training.$$name || exit; done
	@$(VENV)/python -m benchmarks.pages

drills: setup ## Inject faults into a served home, then kill 200 runs (an hour or more); build/drills.md, build/drills_kill.json
	@$(VENV)/python -m tests.drills $(ARGS)
	@$(VENV)/python -m tests.drills.kills
	@$(VENV)/python -m tests.drills.interrupts

lock: setup ## Resolve anew and write requirements.lock
	@$(VENV)/python tools/lock.py

protos: setup ## Generate serving/protocol/serving_pb2.py from serving.proto
	@$(VENV)/python -m grpc_tools.protoc -I serving/protocol --python_out=serving/protocol --pyi_out=serving/protocol serving.proto

clean: ## Remove .venv, caches and build output; the workspace (data, models) stays
	@rm -rf .venv .setup.lock build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* *.egg-info
