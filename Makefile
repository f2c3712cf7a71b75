# Every target makes its own environment in .venv from requirements.lock; nothing is installed globally.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/.ready
export DAGSTER_DISABLE_TELEMETRY := 1
export GX_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.PHONY: help setup run dev services audit test coverage test-services test-long torture bench bench-quick power-loss mutants focus-check spreadsheet-check scale test-engines test-scale lint lint-types lint-sql contract demo-pages lock clean frozen-home wheels docs

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make .venv from the lock file; leaves .venv/bin/apiary

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "apiary needs Python 3.11, 3.12 or 3.13 on the PATH; install one and run make again" >&2; exit 2; }
	@echo "making .venv ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.8'
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
	@$(BIN)/python -c 'from pipelines.defs.dbt_project import manifest; manifest()' # or the first start of Dagster waits for it

# Only HIVE_HOME= on make's own command line counts: an exported variable must not ship anybody's home.
ifeq ($(origin HIVE_HOME),command line)
RUN_HOME := --home "$(HIVE_HOME)" $(if $(CONSENT),--consent "$(CONSENT)")
endif
run: $(READY) ## the whole job on a simulated fleet (HIVE_HOME=path CONSENT=include for a real home)
	@$(BIN)/apiary demo $(RUN_HOME)

dev: $(READY) ## the Dagster UI on 127.0.0.1:3000 (APIARY_PORT=4000 for another port)
	@$(BIN)/apiary dev

services: $(READY) ## an object server, PostgreSQL, the UI, the daemon and `apiary serve` on the loopback, until Ctrl-C
	@$(BIN)/python -m deploy.services

test: $(READY) lint ## all checks: lint, types, import rules, derived files, unit, dbt, end to end
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Three at once on two cores: each waits for programs that it started for a third of its time.
test-services: $(READY) ## programs started and killed, whole builds, on a folder and on a real object server
	@$(BIN)/python -m pytest -m "services and not long" -n 3 --dist loadfile --no-loadscope-reorder

# 80 columns. Per cent are of statements and branches together.
coverage: $(READY) ## what tests run of pipelines/, least first, and the total (ARGS="tests/billing")
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@code=0; $(BIN)/coverage run -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS) || code=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage report --sort=cover --skip-covered | awk ' \
		NR == 1 || (NF == 6 && (++rows <= 30 || $$1 == "TOTAL")) \
			{ printf "%-56s %7s %7s %7s\n", $$1, $$6, $$2, $$3 }'; exit $$code

test-long: $(READY) ## full counts of kills, fuzz and load, hours of it (ARGS="tests/device" for a part)
	@$(BIN)/python -m pytest -m long $(ARGS)

torture: $(READY) ## kills, faults and full disks until 10,000 processes died; adds up in bench/reports (ARGS="--minutes 10")
	@nice -n 19 $(BIN)/python -m bench.torture $(ARGS)

# A peer in an environment of its own: nothing of the project needs it.
DLT := .cache/dlt
$(DLT)/.ready: $(READY)
	@test -x $(DLT)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(DLT)
	@$(BIN)/uv pip install --quiet --python $(DLT)/bin/python "dlt[duckdb,filesystem,parquet]==1.31.0" duckdb==1.5.5 orjson \
		&& touch $@ || echo "dlt could not be installed: what is measured beside it is skipped" >&2

bench: $(READY) $(DLT)/.ready ## processor seconds beside the least that the same data costs; writes bench/reports/latest.md
	@$(BIN)/python -m bench.ratios --write

bench-quick: $(READY) ## the same on little data; fails if a ratio is worse than the one in bench/reports/ratios.json
	@$(BIN)/python -m bench.ratios --quick

power-loss: $(READY) ## 1,200 losses of power, recovered; needs strace
	@nice -n 19 $(BIN)/python -m bench.power_loss $(ARGS)

mutants: $(READY) ## break delivery, money, privacy and access in some 200 ways; each must be found
	@nice -n 19 $(BIN)/python -m bench.mutants $(ARGS)

docs: $(READY) ## site/: the documentation and the pages of every model, as one site that needs no server
	@$(BIN)/mkdocs build --quiet --clean
	@for step in "parse" "docs generate --static --empty-catalog --no-compile"; do \
		$(BIN)/dbt --quiet $$step --project-dir dbt_project --profiles-dir dbt_project \
		--target-path "$(CURDIR)/.cache/dbt-docs" --log-path "$(CURDIR)/.cache/dbt-docs" || exit 1; done
	@mkdir -p site/dbt && cp .cache/dbt-docs/static_index.html site/dbt/index.html
	@$(BIN)/python -m tests.column_lineage site/columns.html
	@echo "open site/index.html"

wheels: $(READY) ## dist/: the device part and the warehouse as wheels
	@rm -rf dist
	@$(BIN)/uv build --quiet --wheel --out-dir dist .
	@$(BIN)/uv build --quiet --wheel --out-dir dist packaging/warehouse
	@ls dist/*.whl

frozen-home: $(READY) ## the home that later releases are tested to upgrade; when a release is cut
	@$(BIN)/python -m tests.end_to_end.freeze

lint: $(READY) ## ruff, mypy, import rules; sqlfluff over the models as dbt compiles them
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(MAKE) --no-print-directory -j 2 lint-types lint-sql

lint-types: $(READY)
	@$(BIN)/mypy

# dbt goes on from the parse of `setup`, whose settings these are. What is left of a model that is no more would be linted.
SQL := .cache/sql
lint-sql: $(READY)
	@rm -rf $(SQL) && mkdir -p $(SQL)
	@test ! -e dbt_project/target/partial_parse.msgpack || cp dbt_project/target/partial_parse.msgpack $(SQL)
	@env -u APIARY_WAREHOUSE -u APIARY_MEMORY_LIMIT APIARY_ENGINE=duckdb $(BIN)/dbt --quiet --log-level-file none compile \
		--full-refresh --select resource_type:model --indirect-selection empty --project-dir dbt_project \
		--profiles-dir dbt_project --target-path $(CURDIR)/$(SQL) --log-path $(CURDIR)/$(SQL)
	@PYTHONWARNINGS=ignore $(BIN)/sqlfluff lint --disable-progress-bar --processes 2 $(SQL)/compiled/apiary/models

contract: $(READY) ## write the files derived from the contract, metrics, requirements and commands
	@$(BIN)/python -m pipelines.contract.render
	@$(BIN)/python -m pipelines.warehouse.metrics
	@$(BIN)/python -m tests.requirements
	@$(BIN)/python -m tests.commands_page

demo-pages: $(READY) ## docs/questions.md with its answers on the demo, and the pictures of the README (needs Chromium)
	@$(BIN)/python -m tests.questions_page

LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
lock: ## resolve pyproject.toml into requirements.lock, and into requirements-spark.lock what `make scale` installs
	@$(BIN)/$(LOCK) --group warehouse --group postgres --group prices --group notebooks --group dev --output-file requirements.lock
	@$(BIN)/$(LOCK) --group warehouse --group postgres --group ducklake --group spark --group scale --output-file requirements-spark.lock

# The validator pins other versions of our libraries: it lives apart, and its environment is made once.
FOCUS := .cache/focus
focus-check: $(READY) ## the statements of a simulated fleet before the public FOCUS validator
	@test -x $(FOCUS)/bin/focus-validator || { rm -rf $(FOCUS) && python3.11 -m venv $(FOCUS) && \
		$(FOCUS)/bin/pip install --quiet --disable-pip-version-check focus-validator==1.0.0 'multimethod<2' 'pyarrow<19'; }
	@rm -rf .cache/focus-home # of another state of the code its marts could not be built on
	@APIARY_HOME=$(CURDIR)/.cache/focus-home $(BIN)/apiary demo > .cache/focus-demo.log
	@APIARY_HOME=$(CURDIR)/.cache/focus-home $(BIN)/python -m bench.focus_check $(FOCUS)

# What audits has dependencies of its own: it lives apart too.
AUDIT := .cache/audit
SBOM := .cache/sbom.cdx.json
audit: $(READY) ## .cache/sbom.cdx.json, the bill of materials (CycloneDX), and known vulnerabilities of all that is locked
	@test -x $(AUDIT)/bin/pip-audit || { rm -rf $(AUDIT) && $(BIN)/uv venv --quiet --python $(BIN)/python $(AUDIT) && \
		$(BIN)/uv pip install --quiet --python $(AUDIT)/bin/python pip-audit==2.10.1 cyclonedx-bom==7.5.0; }
	@$(AUDIT)/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
		--of JSON -o $(SBOM) && echo "written: $(SBOM)"
	@code=0; $(AUDIT)/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip \
		--vulnerability-service osv --progress-spinner off > $(AUDIT)/found 2>&1 || code=$$?; \
		if grep -q "known vulnerabilit" $(AUDIT)/found; then cat $(AUDIT)/found; exit $$code; fi; tail -n 1 $(AUDIT)/found >&2; \
		echo "audit: the service that knows vulnerabilities could not be asked: whether there are any is unknown" >&2; exit 3

# Spark is half a gigabyte: the engines have an environment of their own, with what the warehouse needs and theirs.
SPARK := .cache/spark
$(SPARK)/.ready: $(READY) requirements-spark.lock
	@echo "making $(SPARK) ..."
	@test -x $(SPARK)/bin/python || $(PYTHON) -m venv $(SPARK)
	@$(BIN)/uv pip sync --quiet --python $(SPARK)/bin/python --require-hashes requirements-spark.lock
	@touch $@

scale: $(SPARK)/.ready ## the models on DuckLake and Spark, marts compared with DuckDB's (ARGS="--engines ducklake")
	@nice -n 10 $(SPARK)/bin/python -m bench.scale $(ARGS)

test-engines: $(SPARK)/.ready ## what differs from engine to engine, on Spark: macros, and models that call them; in .ci/run
	@$(SPARK)/bin/python -m pytest -m scale tests/scale/test_macros.py tests/scale/test_small.py

test-scale: $(SPARK)/.ready ## that, and whole builds killed on DuckLake and Spark; what lacks PostgreSQL or Java 17 is skipped
	@$(SPARK)/bin/python -m pytest -m scale tests/scale

# As root it installs the Debian package where it is missing; else the test is skipped, and says so.
spreadsheet-check: $(READY) ## LibreOffice opens the files of finance: its totals are those of the invoices
	@command -v soffice > /dev/null || { test "$$(id -u)" = 0 && { apt-get update -qq; apt-get install -y -qq --no-install-recommends libreoffice-calc; }; } \
		|| echo "LibreOffice is missing: install the Debian package libreoffice-calc" >&2
	@$(BIN)/python -m pytest tests/billing/test_current.py -m long

clean: ## remove the environment and caches
	@rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache dbt_project/target dbt_project/logs
