# Everything runs in .venv, which each target builds by itself from the hashed requirement files.
# Needs: Python 3.11 or newer. uv is used where it is installed, else venv and pip.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.PHONY: help demo test lint bench docs serve nightly lowest python postgres coverage mutation fuzz sbom release lock clean

V := .venv/bin

help:  ## What there is to do
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/.stamp-demo  ## Attack one workspace from another on a real PostgreSQL (ARGS=--json for a machine)
	@$(V)/axis-security demo $(ARGS)

test: .venv/.stamp-dev  ## All tests but the long ones (ARGS= for pytest)
	@$(V)/python -m pytest -n 2 $(ARGS)

nightly: .venv/.stamp-dev  ## All tests, with the long profiles
	@AXIS_TEST_PROFILE=nightly $(V)/python -m pytest -n 2 -m "nightly or not nightly" --timeout=3600 $(ARGS)

lowest: .venv-lowest/.stamp-lowest  ## All tests on the lowest versions that pyproject.toml names, in an environment of their own
	@AXIS_TEST_PROFILE=short .venv-lowest/bin/python -m pytest -n 2 $(ARGS)

VERSION ?= 3.13
python:  ## All tests on another Python, in an environment of its own (VERSION=3.13)
	@PYTHON="$${PYTHON:-python$(VERSION)}" requirements/install dev .venv-$(VERSION)
	@AXIS_TEST_PROFILE=short .venv-$(VERSION)/bin/python -m pytest -n 2 $(ARGS)

postgres: .venv/.stamp-dev  ## The tests that use a database, on another PostgreSQL (VERSION=15)
	@AXIS_TEST_PROFILE=short $(V)/python tests/on_postgres.py $(VERSION) -n 2 tests/integration tests/property $(ARGS)

coverage: .venv/.stamp-dev  ## Branch coverage of src; fails under what pyproject.toml says
	@$(V)/coverage erase
	@AXIS_TEST_PROFILE=short $(V)/coverage run -m pytest -n 2 $(ARGS)
	@$(V)/coverage combine -q
	@$(V)/coverage report

mutation: .venv/.stamp-dev  ## Change the code in small ways and count the changes that no test notices (ARGS="rbac.decision --all")
	@$(V)/python tests/mutation/run.py $(ARGS)

FUZZ_SECONDS ?= 600
fuzz: .venv/.stamp-dev  ## Coverage-guided fuzzing of what strangers' bytes reach first, ten minutes a target (FUZZ_SECONDS=60)
	@for target in cookies signed field stream security_txt foreign_hash texts; do echo "$$target"; \
	  $(V)/python tests/fuzz/run.py $$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1; done

sbom: .venv/.stamp-dev  ## What a release stands on, as CycloneDX: dist/axis-security.cdx.json
	@mkdir -p dist
	@$(V)/cyclonedx-py requirements requirements/runtime.txt --pyproject pyproject.toml --output-reproducible --of JSON -o dist/axis-security.cdx.json

release: sbom  ## Wheel and sdist beside the bill of materials in dist/, after every check of a release
	@$(V)/python -m pytest -m "nightly or not nightly" tests/integration/test_release.py tests/integration/test_sbom.py tests/typing $(ARGS)
	@$(V)/hatchling build -d dist

lint: .venv/.stamp-dev  ## ruff, its formatter, mypy --strict, and our own secret scanner
	@$(V)/ruff check
	@$(V)/ruff format --check
	@$(V)/mypy
	@$(V)/axis-security secrets scan

bench: .venv/.stamp-bench  ## Measure against peers and limits (ARGS="roundtrips rls --json" for some)
	@$(V)/python -m benchmarks $(ARGS)

docs: .venv/.stamp-docs  ## Build the documentation into site/
	@$(V)/mkdocs build --strict $(ARGS)

serve: .venv/.stamp-dev  ## The example application, with sample data
	@$(V)/python -m examples.crm $(ARGS)

lock: .venv/.stamp-dev  ## Pin the requirement files again (needs uv)
	@requirements/lock

clean:  ## Remove everything that can be made again
	@rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* dist build site

.venv/.stamp-%: requirements/%.txt requirements/install
	@requirements/install $*

.venv-lowest/.stamp-lowest: requirements/lowest.txt requirements/install
	@requirements/install lowest .venv-lowest
