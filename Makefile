# make demo   a dancing figure through the real ROS 2 node, scored        make test   the tests, with coverage
# make lint   style, types, import arrows                                 make clean  remove what was made here
#
# demo, test and lint set up .venv on first use and need only Python 3.11 to 3.13. Where the default package index brings
# the CUDA build of PyTorch and that is not wanted, name the index of its CPU builds: make demo TORCH_INDEX=URL

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := ros,data,test
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test lint format clean

demo: $(READY)
	$(BIN)/nr_tracking demo

test: $(READY)
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered test
	$(BIN)/python scripts/coverage_gate.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): setup.py pyproject.toml constraints.txt scripts/create_venv.sh
	PYTHON="$(PYTHON)" sh scripts/create_venv.sh $(VENV)
	$(PIP) install -q $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) install -q -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* \
		.import_linter_cache
