CODE = src tests benchmarks lab image kit demo scripts
COMPILED = tests/__pycache__/compiled

.PHONY: help setup check style types types-of-tests floors docs test mutants bench fuzz image cluster-up cluster-test cluster-down

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## .venv with everything that the tests need
	@scripts/setup.sh --dev

check: setup ## style, types, the floors of the house
	@$(MAKE) --no-print-directory -j 4 style types types-of-tests floors $(COMPILED)

style: ## ruff
	.venv/bin/ruff check -q $(CODE)
	.venv/bin/ruff format --check -q $(CODE)

types: ## mypy, of the package
	.venv/bin/mypy

types-of-tests: ## mypy, of the tests
	.venv/bin/mypy --config-file tests/mypy.ini

floors: ## import-linter: who imports whom
	.venv/bin/lint-imports

# The tests, compiled once: each process of a run would compile all of them for itself, where none did before.
$(COMPILED): $(wildcard tests/*.py)
	env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m pytest --collect-only -q >/dev/null
	@touch $@

# Everything that must hold: style, types, the floors of the house, tests in several processes, coverage of the floors that hold the rules.
# PYTEST takes more words for the tests, as in `make test PYTEST=--known-skips`.
test: check ## what must pass: check, and every test (PYTEST=… adds words)
	rm -f .coverage .coverage.*
	env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m pytest -n auto --dist=loadgroup --no-loadscope-reorder -rs --durations=10 --cov --cov-report= $(PYTEST)
	.venv/bin/coverage report --skip-covered --include='src/greentic/model/*,src/greentic/trust/*,src/greentic/bundle/*,src/greentic/pack/*,src/greentic/store/*,src/greentic/materialize/*' --fail-under=95

# Whether the tests would notice: changes one thing of a module at a time. See docs/mutants.md. MUTANTS='trust store' chooses rooms or modules.
mutants: setup ## whether the tests would notice a change (hours; MUTANTS=trust)
	.venv/bin/python kit/mutants.py run $(MUTANTS)

# What is printed from tables.
docs: setup ## the pages that are printed from tables
	.venv/bin/python scripts/pages.py

# Side by side in one run, medians and spread; renders docs/performance.md.
bench: setup ## numbers, rendered to docs/performance.md
	.venv/bin/python benchmarks/run.py

# A million inputs for the parsers, going on where the last run stopped. FUZZ="--minutes 10" bounds the time.
fuzz: setup ## a million inputs for the parsers
	.venv/bin/python benchmarks/fuzz.py $(FUZZ)

# The worker's image as an OCI layout, without Docker or a registry.
image: setup ## the worker's image, without Docker
	.venv/bin/python image/build.py

# A cluster for tests and the demo: CLUSTER=lab (built here), kind, or current. See lab/run.sh.
cluster-up: image ## a cluster for tests and the demo (CLUSTER=lab, kind or current)
	lab/run.sh up

cluster-test: cluster-up ## the tests on it
	KUBECONFIG=$$(lab/run.sh kubeconfig) .venv/bin/python -m pytest tests/cluster -n 3 --dist=loadgroup --no-loadscope-reorder -rs --durations=5 $(PYTEST)

cluster-down: ## take it away
	lab/run.sh down
