# Both set up .venv in this folder first.
PYTHON ?= python3

.PHONY: search test test-slow lint

search: .venv/ready  ## search a cell on the digits that come with the package
	.venv/bin/python -m darts_tf.search $(FLAGS)

test: .venv/ready  ## the fast tests
	.venv/bin/python -m pytest -q

test-slow: .venv/ready  ## the rest of the tests
	.venv/bin/python -m pytest -q -m slow

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
