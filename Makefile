# Everything a person or CI does here. `make help` lists it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARCHIVES ?= samples
MODE ?= staged
SOURCES ?=
DEST ?= folder
PORT ?= 4200
KILLS ?= 50
FUZZ_CASES ?= 1500

.DEFAULT_GOAL := help
# also: see each target's own line
.PHONY: docs-site audit workflows dist release-check release-notes
.PHONY: help run test test-long test-all coverage mutants check lint types format bench faults chaos up deploy down lock docs pictures \
        kind-up kind-run kind-ui kind-down clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# --- environment: private, from hashed locks; uv is only the fast way, pip does the same ---

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 15) or sys.exit("macroscope needs Python 3.11 to 3.14 and found %d.%d: install one of them and say which, as in: make PYTHON=python3.13 run" % v)'
	$(PYTHON) -m venv $(VENV)

define install
	$(BIN)/pip install -q --require-hashes -r requirements/uv.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install -q --require-hashes -r $(1) \
	  || $(BIN)/pip install -q --require-hashes -r $(1)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install -q --no-deps -e . \
	  || $(BIN)/pip install -q --no-deps -e .
endef

$(VENV)/.run: requirements/run.lock requirements/uv.lock pyproject.toml | $(BIN)/python
	$(call install,requirements/run.lock)
	@touch $@

$(VENV)/.dev: requirements/dev.lock requirements/uv.lock pyproject.toml | $(BIN)/python
	$(call install,requirements/dev.lock)
	@touch $@ $(VENV)/.run

# --- the main job ---

run: $(VENV)/.run ## Bring in all sources (ARCHIVES=public, MODE=parallel, SOURCES="ebi idr", DEST=s3)
	@$(BIN)/macroscope run --archives $(ARCHIVES) --mode $(MODE) \
	  $(foreach s,$(SOURCES),--source $(s)) $(if $(filter s3,$(DEST)),--local-s3)

up: $(VENV)/.run ## Start a local Prefect server (UI on PORT), work pool, worker, stand-in archives
	@$(BIN)/macroscope up --port $(PORT) --archives $(ARCHIVES)

deploy: $(VENV)/.run ## Register all deployments with the server that `make up` started
	@test -n "$$PREFECT_API_URL" || . .macroscope/client.env && $(BIN)/macroscope deploy

down: $(VENV)/.run ## End what `make up` started
	@$(BIN)/macroscope down

# --- proof ---

# Pages are tested in headless Chromium; where it cannot be had, those tests say so and are skipped.
.PHONY: browser
browser:
	@command -v chromium >/dev/null || (apt-get update -q && apt-get install -qy chromium) \
	  >/dev/null 2>&1 || echo "no chromium here: tests of pages will be skipped"

# The tests of a file run in one process; three, because they wait for servers half of the time. Files
# with the most tests are not those that take longest, so they are not taken first.
SPREAD := -n 3 --dist loadfile --no-loadscope-reorder

# What fails is run once more, alone and in new processes. A fault of the code fails again; what passes
# then depended on the moment (thousands of connections, one refused): it is listed, and to be mended.
define prove
	$(BIN)/python -m pytest -m $(1) $(SPREAD) || { [ $$? -eq 1 ] \
	  && echo "Once more, alone, what failed. What is listed as PASSED below is unsteady: mend it." \
	  && $(BIN)/python -m pytest -m $(1) --last-failed --last-failed-no-failures none --maxfail 3 -rpE; }
endef

test: $(VENV)/.dev browser ## The everyday test suite
	$(call prove,"not slow and not long")

test-long: $(VENV)/.dev browser ## Whole deployments, kills of servers, the tutorial: minutes more
	$(call prove,"long and not slow")

test-all: $(VENV)/.dev browser ## Every test, the slow ones too
	$(BIN)/python -m pytest

coverage: $(VENV)/.dev ## Branch coverage of lib by everything but whole runs
	@mkdir -p .coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow and not long" $(SPREAD) \
	  --ignore tests/end_to_end --ignore tests/chaos
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

# The tool that makes mutants wants an environment of its own.
MUTANTS := .macroscope/mutants
$(MUTANTS)/bin/cosmic-ray:
	$(PYTHON) -m venv $(MUTANTS)
	$(MUTANTS)/bin/pip install -q cosmic-ray==8.7.0

mutants: $(VENV)/.dev $(MUTANTS)/bin/cosmic-ray ## Change grid, ledger, digests and records: does a test notice? (PARTS="grid", EVERY=4)
	$(BIN)/python -m tests.mutation.run $(if $(EVERY),--every $(EVERY)) $(PARTS)

check: lint workflows types test test-long docs-site ## What CI runs, in the same words

lint: $(VENV)/.dev ## Lint, format, import rules, dead code
	$(BIN)/ruff check macroscope flows tasks lib emulators tests benchmarks docs
	$(BIN)/ruff format --check macroscope flows tasks lib emulators tests benchmarks docs
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/bandit -q -c pyproject.toml -r macroscope flows tasks lib emulators

types: $(VENV)/.dev ## Strict type check
	$(BIN)/mypy

format: $(VENV)/.dev ## Put the code into the house style
	$(BIN)/ruff check --fix macroscope flows tasks lib emulators tests benchmarks
	$(BIN)/ruff format macroscope flows tasks lib emulators tests benchmarks

bench: $(VENV)/.dev ## Benchmarks against other tools (SIZE= MB)
	$(BIN)/python -m benchmarks $(if $(SIZE),--size $(SIZE))

faults: $(VENV)/.dev ## Print the fault matrix
	$(BIN)/python -m tests.faults.matrix

chaos: $(VENV)/.dev ## Kill runs (KILLS=n), Dask workers and the Prefect server (a tenth as often); compare
	$(BIN)/python -m tests.chaos --kills $(KILLS)

# --- upkeep ---

COMPILE := $(BIN)/uv pip compile pyproject.toml --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q
UNIVERSAL := --universal --fork-strategy requires-python
IMAGE := --override requirements/image.overrides -c requirements/run.lock

lock: | $(BIN)/python ## Renew the hashed locks (no addresses in them): run and dev for every Python and platform, images for theirs
	$(BIN)/pip install -q --require-hashes -r requirements/uv.lock
	$(COMPILE) $(UNIVERSAL) --all-extras --group test --group oracles --group lint --group docs --group bench -U \
	  -o requirements/dev.lock
	$(COMPILE) $(UNIVERSAL) --extra samples -c requirements/dev.lock -o requirements/run.lock
	$(COMPILE) $(IMAGE) -o requirements/image.lock
	$(COMPILE) $(IMAGE) --extra samples -o requirements/samples.lock

docs: $(VENV)/.dev ## Renew the documents that are written from the code
	$(BIN)/python -m docs.config_reference
	$(BIN)/python -m docs.record_schema
	$(BIN)/python -m docs.record_reference
	$(BIN)/python -m docs.proof_table
	$(BIN)/python -m tests.formats.damage
	$(BIN)/python docs/dependencies.py
	$(BIN)/python -m docs.reach
	$(BIN)/python helm/values_table.py

docs-site: $(VENV)/.dev ## Build the documentation site; a link that leads nowhere fails it (no network)
	$(BIN)/mkdocs build --strict

# --- release: every step of the workflows is a target that runs here, too ---

audit: $(VENV)/.dev ## Known vulnerabilities in the run lock; says so where their database is out of reach
	@$(BIN)/python docs/audit.py

workflows: $(VENV)/.dev ## Check the workflow files, without a network
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet --config .github/zizmor.yml --min-severity medium .github/workflows

dist: $(VENV)/.dev ## Build wheel and sdist into dist/
	$(BIN)/python -m build --installer uv --outdir dist

release-check: ## A tag must be the version that pyproject.toml, the chart and CHANGELOG.md have (TAG=v1.2.3)
	@$(PYTHON) docs/release.py check "$(TAG)"

release-notes: ## What CHANGELOG.md says of a tag (TAG=v1.2.3)
	@$(PYTHON) docs/release.py notes "$(TAG)"

pictures: $(VENV)/.dev browser ## Renew the screenshots of the README, from a run on the stand-ins
	PYTHONPATH=. $(BIN)/python docs/pictures.py

kind-up: ## A kind cluster with the chart in it, on the stand-in archives
	sh k8s/kind-up.sh

kind-run: ## Run the whole pipeline there and follow it
	sh k8s/kind-run.sh

kind-ui: ## Open the Prefect UI of the kind cluster
	sh k8s/kind-ui.sh

kind-down: ## Delete the kind cluster
	sh k8s/kind-down.sh

clean: ## Remove volumes, records, logs and caches made here
	rm -rf data data-s3 metadata logs .macroscope .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
