# `make book` builds the site, `make test` checks everything; both make the environment first.
# `make book PROFILE=book` runs the notebooks at the size that the site publishes.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= quick
JOBS ?=
TEST_JOBS ?= 2
PORT ?= 8000
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: book test lint serve run clean env
.DEFAULT_GOAL := book

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements/constraints.txt requirements/embedded.txt requirements/triton.txt
	$(PYTHON) requirements/python_version.py
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP_INSTALL) -c requirements/constraints.txt pip
	index="$$($(BIN)/python requirements/torch_index.py $(TORCH_CPU_INDEX))" && \
		$(PIP_INSTALL) $$index -c requirements/constraints.txt -e '.[dev]'
	$(PIP_INSTALL) --no-deps -r requirements/embedded.txt
	$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP_INSTALL) --no-deps -r requirements/triton.txt
# All cores compile, where pip would take one. A file written for another Python fails, and is never imported.
	$(BIN)/python -m compileall -qq -j 0 -x '/site-packages/.*/tests?/' $(VENV)/lib || true
	touch $@

run: env
	$(BIN)/prunebook run --profile $(PROFILE) $(if $(JOBS),--jobs $(JOBS))

book: run
	$(BIN)/prunebook build

test: lint
	browser="$$($(BIN)/python tests/browser/find_browser.py)" && \
		PRUNEBOOK_BROWSER="$$browser" OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/prunebook check

serve: env
	$(BIN)/prunebook serve --port $(PORT)

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
