# Everything a person types. `make demo` and `make test` do all of their own set-up.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

RUN_DATE ?= 2017-12-03
BIN := .venv/bin
UV := .tools/uv/bin/uv

# Workers must run the environment's interpreter, and Spark must be the environment's own.
export PYSPARK_PYTHON := $(CURDIR)/$(BIN)/python
export PYSPARK_DRIVER_PYTHON := $(PYSPARK_PYTHON)
export SPARK_LOCAL_IP := 127.0.0.1
unexport SPARK_HOME SPARK_CONF_DIR PYTHONPATH VIRTUAL_ENV
# Set-up notes a Java home here only when the usual `java` would not do.
ifneq ($(wildcard .tools/java_home),)
export JAVA_HOME := $(shell cat .tools/java_home)
endif

# An environment that was made elsewhere, or in a folder since moved, is made again.
moved = $(if $(filter $(CURDIR),$(shell cat $(1)/.ready 2>/dev/null)),,always)

.PHONY: help setup setup-airflow setup-docs demo demo-data test check lint docs cluster-demo golden soak bench bench-data bench-topk bench-als bench-night lock wheel clean always

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | while IFS=$$'\t' read -r name what; do printf '  make %-14s %s\n' "$$name" "$$what"; done

setup: .venv/.ready ## the environment .venv: locked packages, Delta's JARs, the project
	@:
setup-airflow: .venv-airflow/.ready ## Airflow's own environment, .venv-airflow
	@:
setup-docs: .venv-docs/.ready ## the environment of the documents' site, .venv-docs
	@:

.venv/.ready: lock/bootstrap.txt lock/spark.txt lock/jars.sha256 pyproject.toml scripts/setup.py $(call moved,.venv)
	@python3 scripts/setup.py spark
.venv-airflow/.ready: lock/bootstrap.txt lock/airflow.txt scripts/setup.py $(call moved,.venv-airflow)
	@python3 scripts/setup.py airflow
.venv-docs/.ready: lock/bootstrap.txt lock/docs.txt scripts/setup.py $(call moved,.venv-docs)
	@python3 scripts/setup.py docs

demo: setup ## a whole night on a year of real retail data
	@$(BIN)/recsys demo
demo-data: setup ## only the demo's input files
	@$(BIN)/recsys demo --prepare-only

test: setup setup-airflow setup-docs ## style, types, documents and all tests
	@$(BIN)/python scripts/check.py
check: setup ## style, types and the tests that need no Spark: two minutes
	@$(BIN)/python scripts/check.py --quick
lint: setup ## style and types only
	@$(BIN)/python scripts/check.py --lint
golden: setup setup-airflow ## accept the present output as the golden files (look at git diff afterwards)
	@GOLDEN=accept $(BIN)/python scripts/check.py --golden
soak: setup setup-airflow ## the tests that take long, at most an hour
	@$(BIN)/python scripts/check.py --soak

docs: setup setup-docs ## the reference pages, the README's pictures and the site, build/site/index.html
	@$(BIN)/python scripts/reference.py
	@$(BIN)/python scripts/pictures.py
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict
	@echo "site    build/site/index.html"

cluster-demo: setup ## the same night by spark-submit on a standalone master and two workers
	@bash scripts/cluster_demo.sh demo $(RUN_DATE)
bench: ## all the benchmarks, one after the other: some hours
	@$(MAKE) bench-data
	@$(MAKE) bench-als
	@$(MAKE) bench-topk
	@$(MAKE) bench-night
bench-data: setup ## files to silver, beside what Spark takes to copy the same rows
	@$(BIN)/python benchmarks/bench_data.py
bench-topk: setup ## the top-K kernel against the bare product, its peers, more users and more workers
	@$(BIN)/python benchmarks/bench_topk.py
bench-als: setup ## both ALS trainers, and `implicit` where it is installed, to the same loss; one worker and two
	@$(BIN)/python benchmarks/bench_als.py
	@$(BIN)/python benchmarks/bench_als.py --workers
bench-night: setup ## a whole night, 500,000 users and 10 million events: at most 12 minutes and 10 GB
	@$(BIN)/python benchmarks/bench_night.py

wheel: setup ## the project as dist/*.whl, and as the .zip that --py-files needs
	@bash scripts/wheel.sh
lock: setup ## resolve lock/*.txt again, keeping versions that still fit (UPGRADE=1: the newest)
	@bash scripts/lock.sh
clean: ## what builds and tests leave behind; environments and data stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse metastore_db derby.log
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
