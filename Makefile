# make demo    the whole story on an embedded web     make test    the tests
# make setup   .venv with the program in it           make check   style, types, floors, tests
# make bench   the benchmarks                         make clean   remove .venv and the demo's run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROBE := 'import bokeh, deepspeed, duckdb, pyarrow, ray, torch, trafilatura, pipeline.cli'
ANSWERS = DS_ACCELERATOR=cpu $(BIN)/python -c $(PROBE) && $(BIN)/webtext --version
SETTINGS := pyproject.toml constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test quick check lint bench clean

# The stamp is written last and names the seconds it took: an installation cut short has none, and a damaged
# one does not answer; both are made anew.
setup: $(VENV)/installed
	@{ $(ANSWERS); } >/dev/null 2>&1 || { echo "$(VENV) is damaged: installing it anew"; rm -rf $(VENV); \
		$(MAKE) --no-print-directory $(VENV)/installed; { $(ANSWERS); } >/dev/null; }

$(VENV)/installed: $(SETTINGS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is no Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@rm -rf $(VENV)
	@echo "installing into $(VENV): a few minutes, most of them torch"
	@started=$$(date +%s) && $(PYTHON) -m venv $(VENV) \
		&& $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[training,dev]' \
		&& echo $$(( $$(date +%s) - started )) > $@

demo: setup
	@WEBTEXT_SETUP_SECONDS=$$(cat $(VENV)/installed) $(BIN)/python -m pipeline.demo

# The slow ones share runs within a file: file by file, two at once.
test: quick
	@$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

quick: setup
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint test

bench: setup
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) runs/demo
