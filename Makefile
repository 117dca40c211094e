# make setup   create .venv with the tested versions (constraints.txt), unless it exists
# make demo    train and screen on the shipped gallium clusters, in at most 5 minutes on 2 cores
# make test    run the tests
# make lint, make docs, make bench, make clean

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt)

IS_3_11 := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c '$(IS_3_11)' >/dev/null 2>&1 && echo $$python && break; done)

.PHONY: setup demo test lint docs bench clean
.DELETE_ON_ERROR:

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(IS_3_11)' || \
		{ echo "Python 3.11 or newer is required; choose one with: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs,hdnn,traj,dft,tblite,report,ray,completion,metatomic,hub,tensorboard]'
	@touch $@

demo: setup
	$(BIN)/pyg-clusters demo --out runs/demo

test: setup
	$(BIN)/python -m pytest -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests/benchmarks

clean:
	rm -rf build dist docs/_build docs/reference/commands .pytest_cache .mypy_cache .ruff_cache .benchmarks lightning_logs
