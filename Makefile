# `make demo` and `make test` each do all of their own set-up in .venv; stamp files make repeated runs instant.
# stdout belongs to the programs: everything that make and pip say goes to stderr.

MAKEFLAGS += --no-print-directory
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt
# PYTHON=/path/to/python3 chooses the interpreter; else the newest that works. ARGS goes to the program.
PYTHON ?=
ARGS ?=
# Tests that run at once: more than two cores, because many wait for streams and sockets. Each computes in one thread,
# lest their threads contend for the cores.
JOBS ?= 4
# What must hold at offsets of 2 s and more, and the runs that it is asked of: docs/latency.md says why these.
GATED ?= density,places,count:reference-only
GATE = $(PY) -m viewsync sim sweep --profiles one-camera-dying,paper-citystreet --policies freshest --no-curve

.PHONY: help demo test slow lint gate setup clean distclean

help:
	@echo "make demo [ARGS='--seconds 30 --json']   simulated cameras, agents and hub: counts beside the truth"
	@echo "make test [ARGS='tests/hub -k buffer']   lint, types, import rules and tests"
	@echo "make lint                                the first three of these"
	@echo "make slow                                the dear tests that \`make test\` leaves out"
	@echo "make gate                                whether synchronising helps, in virtual time"
	@echo "make setup                               everything for development, in $(VENV)"
	@echo "make clean, make distclean               remove caches; remove $(VENV) too"

demo: $(VENV)/.demo-ready
	@exec $(PY) -m viewsync demo $(ARGS)

test: lint
	@exec env OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

slow: $(VENV)/.test-ready
	@exec $(PY) -m pytest -m slow $(ARGS)

lint: $(VENV)/.test-ready
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check . || { echo "run: $(PY) -m ruff format ." >&2; exit 1; }
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-logo

gate: $(VENV)/.test-ready
	@$(GATE) --crowds 100500:100506 --out runs/gate --gate $(GATED) $(ARGS)
	@echo "The same frames, as if nobody had moved: now it must fail."
	@$(GATE) --crowds 100500:100503 --out runs/gate-still --flow zero --methods column-2,none \
		--gate density:none,places:none $(ARGS) > runs/gate-still.txt; cat runs/gate-still.txt; grep -q ': FAILED$$' runs/gate-still.txt

setup: $(VENV)/.test-ready

$(VENV)/.python-ready:
	@python=$$(sh scripts/find-python $(PYTHON)) || exit 2; \
	$(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "viewsync: making $(VENV) with $$python" >&2; \
		"$$python" -m venv --clear $(VENV) >&2; \
	}
	@touch $@

# No torch here: the demo runs what edge and hub run.
$(VENV)/.demo-ready: pyproject.toml constraints.txt | $(VENV)/.python-ready
	@echo "viewsync: installing what the demo needs into $(VENV) (once, a minute or so)" >&2
	@$(PIP) -e '.[demo]' >&2
	@touch $@

# torch first: what depends on it must not choose another build.
$(VENV)/.test-ready: pyproject.toml constraints.txt | $(VENV)/.python-ready
	@echo "viewsync: installing torch and the development tools into $(VENV) (once, some minutes)" >&2
	@$(PIP) torch >&2
	@$(PIP) -e '.[demo,calib,train,dev]' >&2
	@touch $@ $(VENV)/.demo-ready

clean:
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	@find calib viewsync edge hub export bench tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	@rm -rf $(VENV)
