.PHONY: setup check test bench

setup:
	@scripts/setup.sh --dev

check: setup
	.venv/bin/ruff check src tests benchmarks
	.venv/bin/ruff format --check -q src
	.venv/bin/mypy
	.venv/bin/lint-imports

# Everything that must hold: style, types, the floors of the house, tests, coverage of the floors that hold the rules.
test: check
	rm -f .coverage .coverage.*
	.venv/bin/python -m pytest -rs --cov --cov-report=
	.venv/bin/coverage report --skip-covered --include='src/greentic/model/*,src/greentic/trust/*,src/greentic/artifact/*,src/greentic/store/*' --fail-under=95

# Side by side in one run, medians and spread; renders docs/performance.md.
bench: setup
	.venv/bin/python benchmarks/run.py
