# Everything runs in .venv, which is built on first use and left alone afterwards. Needs Python 3.11 or newer, make and
# a package index. PYTHON=... picks the interpreter, ARGS=... adds to the arguments of pytest, torture, ...

VENV := .venv
RUN := $(VENV)/bin/python
ARGS ?=

# The tests, shared out among the processors.
SHARED := --numprocesses auto --dist worksteal

# What must be covered to the last branch, and the tests that have to do so.
FLOORS := txpaxos/core/*,txpaxos/wire/*,txpaxos/storage/*,txpaxos/packing.py
COVERING := core wire storage test_arguments.py

# Else each of the many processes that tests start would compile the whole source anew.
unexport PYTHONDONTWRITEBYTECODE

NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python $(NEW_ENOUGH) && echo $$python && exit; done; echo python3)
PIP_INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check

.PHONY: demo test floors coverage fuzz torture model mutants bench docs lint release containers clean
.NOTPARALLEL:

## demo: three nodes on this machine, one of them killed on the way, and then all of them replaced
demo: $(VENV)/installed
	$(VENV)/bin/txpaxos demo

## test: all tests
test: $(VENV)/installed-test
	$(RUN) -m pytest $(SHARED) $(ARGS)

## floors: all tests; those of the lower floors under coverage, and it fails if they leave out a branch of those floors
floors: export TXPAXOS_COVERED := $(COVERING)
floors: $(VENV)/installed-test
	$(RUN) -m pytest $(SHARED) --cov --cov-report= $(ARGS)
	$(RUN) -m coverage report --skip-covered --include='$(FLOORS)' --fail-under=100

## coverage: all tests under coverage, and which lines and branches they leave out; takes three times as long
coverage: $(VENV)/installed-test
	$(RUN) -m pytest $(SHARED) --cov --cov-report= $(ARGS)
	$(RUN) -m coverage report --skip-covered

## fuzz: five million hostile datagrams, frames and requests, and as many well-formed lies at nodes in all states;
## TXPAXOS_FUZZ=... for another number for each of 17 kinds, 17 times as many lies, and a hundredth of TLS connections;
## TXPAXOS_FUZZ_SEED=... for other bytes in those
fuzz: export TXPAXOS_FUZZ ?= 300000
fuzz: $(VENV)/installed-test
	$(RUN) -m pytest -m fuzz --timeout=0 $(ARGS)

## torture: kill, stop, cut off and starve real nodes on a network of their own, as root; ARGS="--minutes 15" for longer
torture: $(VENV)/installed-test
	$(RUN) -m test.torture $(ARGS)

## model: the core through every state of small clusters; some minutes; ARGS="replica --states-max 2000000" for more
model: $(VENV)/installed
	$(RUN) -m txpaxos.testing.model $(ARGS)

## mutants: faults put into copies of the source, each of which must be caught; ARGS="--cpu-seconds 20" for less time
mutants: $(VENV)/installed-test
	$(RUN) -m test.mutants.run $(ARGS)

## bench: beside etcd and PySyncObj on this machine, ten minutes; ARGS="closed --pairs 5" or the like for a part of it
bench: $(VENV)/installed-bench
	@mkdir -p build
	$(RUN) -m bench.compare $(or $(ARGS),all --json build/bench.json --plot build/bench.png)

## docs: the pages and the API reference, as a site in build/docs; a dead reference fails it
docs: $(VENV)/installed-docs
	$(RUN) -m sphinx -W -n --keep-going -q -b html docs build/docs

## lint: style, formatting and types
lint: $(VENV)/installed-test $(VENV)/installed-lint
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

## release: build the wheel and the source distribution into dist, check both, and try the wheel in a new environment;
## all but the upload, which it says how to do; ARGS="--offline" where there is no package index
release: $(VENV)/installed-release
	$(RUN) -m test.release $(ARGS)

## containers: three nodes in containers, with podman or docker: one is killed, and comes back; ARGS="--base IMAGE" for
## another image with Python to build on
containers: $(VENV)/installed-test
	$(RUN) -m test.containers $(ARGS)

## clean: away with all that the above made
clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name dropin.cache -delete

$(VENV)/made:
	@$(PYTHON) $(NEW_ENOUGH) || { \
		echo "txpaxos needs Python 3.11 or newer, and $(PYTHON) is not: install one, or name it with PYTHON=..." >&2; \
		exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made setup.py
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/installed-%: $(VENV)/made setup.py
	$(PIP_INSTALL) --editable '.[$*]'
	@touch $@
