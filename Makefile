.PHONY: setup check docs test bench image cluster-up cluster-test cluster-down

setup:
	@scripts/setup.sh --dev

check: setup
	.venv/bin/ruff check src tests benchmarks lab image kit
	.venv/bin/ruff format --check -q src tests benchmarks lab image kit
	.venv/bin/mypy
	.venv/bin/lint-imports

# Everything that must hold: style, types, the floors of the house, tests, coverage of the floors that hold the rules.
test: check
	rm -f .coverage .coverage.*
	.venv/bin/python -m pytest -rs --cov --cov-report=
	.venv/bin/coverage report --skip-covered --include='src/greentic/model/*,src/greentic/trust/*,src/greentic/bundle/*,src/greentic/pack/*,src/greentic/store/*,src/greentic/materialize/*' --fail-under=95

# What is printed from tables.
docs: setup
	.venv/bin/python scripts/variables_page.py --write

# Side by side in one run, medians and spread; renders docs/performance.md.
bench: setup
	.venv/bin/python benchmarks/run.py

# The worker's image as an OCI layout, without Docker or a registry.
image: setup
	.venv/bin/python image/build.py

# A cluster for tests and the demo: CLUSTER=lab (built here), kind, or current. See lab/run.sh.
cluster-up: image
	lab/run.sh up

cluster-test: cluster-up
	KUBECONFIG=$$(lab/run.sh kubeconfig) .venv/bin/python -m pytest tests/cluster -rs --durations=5

cluster-down:
	lab/run.sh down
