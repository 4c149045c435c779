# Both set up .venv in this folder first.
PYTHON ?= python3

.PHONY: digits test test-slow test-soak test-torch lint

# Where `make digits` leaves its run directories.
RUN := runs/digits-$(shell date +%Y%m%d-%H%M%S)

digits: .venv/ready  ## search a cell on the digits that come with the package, train the network made of it, export it
	.venv/bin/python -m darts_tf.search --output=$(RUN)/search $(SEARCH_FLAGS)
	.venv/bin/python -m darts_tf.train --arch=$(RUN)/search/genotype.json --output=$(RUN)/train $(TRAIN_FLAGS)
	.venv/bin/python -m export --model=$(RUN)/train/model.keras --name=digits --output=$(RUN)/serving

test: .venv/ready  ## the fast tests
	.venv/bin/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder  # in the order of tests/conftest.py

test-slow: .venv/ready  ## the rest of the tests
	.venv/bin/python -m pytest -q -m slow -n $$(($$(nproc) + 1)) --dist worksteal  # some of them wait for others

test-soak: .venv/ready  ## what is worth running before a release: what learns, what is killed most often, benchmarks
	.venv/bin/python -m pytest -q -m soak -n $$(($$(nproc) + 1)) --dist worksteal

test-torch: .venv/ready  ## what needs PyTorch, which it installs
	.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[torch]'
	.venv/bin/python -m pytest -q -m "" tests/test_convert.py -k torch

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
