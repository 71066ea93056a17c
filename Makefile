# Needs make, a network, and Python 3.11 or newer with venv. Everything else goes into .venv.

PYTHON ?= python3
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo shop test lint check format lock functions-hash clean

help:
	@echo 'make demo            real baskets through the checkout, on a PostgreSQL that comes and goes with it'
	@echo 'make shop            the shop of examples/shop, with all that it needs; ARGS="--port 8080", ARGS=--once to have it buy'
	@echo 'make test            the test suite; TEST_DATABASE_URL names another server than the embedded one'
	@echo 'make test-moves      of it the moves of a market between two servers, a stage of their own'
	@echo 'make lint            ruff, mypy, pyright, squawk and the like, over what git tracks'
	@echo 'make check           lint, docs and test, as CI does'
	@echo 'make docs            the site of docs/, into build/site; make docs-reference writes its generated pages anew'
	@echo 'make format          let ruff format the Python files'
	@echo 'make lock            refresh requirements.lock'
	@echo 'make functions-hash  record the hash of db/functions/ in its migration'
	@echo 'make mutants         the suite against copies with one lock, index or check taken out; ARGS=--only inventory'
	@echo 'make test-pgbouncer  the tests of the wrapper behind a pgbouncer; PGBOUNCER names another than that of the PATH'
	@echo 'make soak            100,000 checkouts while the server dies under them; ARGS=--checkouts 2000'
	@echo 'make failover        callers whose primary dies, 80 times; ARGS="--times 2"'
	@echo 'make moves           a market moved 34 times under load; ARGS="--times 4", ARGS="--kill source"'
	@echo 'make bench           minutes of benchmarks beside client-side programs and a floor; ARGS="--only uniform delay"'
	@echo 'make bench-full      all of them, longer: an hour or two and up to 110 GB of disk; ARGS="--only orders"'
	@echo 'make overload        two hundred callers on this machine: a quarter of an hour; ARGS="--only hot", ARGS=--write'
	@echo 'make release         build the sdist and the wheel of this commit into dist/, and run the demo from the wheel'
	@echo 'make clean           remove .venv, caches and builds'

demo: $(VENV)/demo
	@$(BIN)/python -m pycheckout.demo

shop: $(VENV)/dev
	@$(BIN)/python -m examples.shop $(ARGS)

test: $(VENV)/dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(or $(ARGS),--ignore tests/test_moves.py)
	$(if $(ARGS),,@$(MAKE) --no-print-directory test-moves)

# Apart from the rest, for three minutes: each starts servers of its own, and waits for them.
.PHONY: test-moves
test-moves: $(VENV)/dev
	$(BIN)/python -m pytest -n $(WORKERS) tests/test_moves.py

# The linters are those of .pre-commit-config.yaml.
lint: $(VENV)/dev
	@PRE_COMMIT_HOME=$(CURDIR)/$(VENV)/pre-commit $(BIN)/pre-commit run --all-files

check: lint docs test

# Without the theme's news about its successor.
.PHONY: docs docs-reference
docs: $(VENV)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-reference: $(VENV)/dev
	$(BIN)/python -m docs_site.reference

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The newest versions that pyproject.toml allows, as they install into an empty environment. To be made with the oldest
# Python that is supported: the newest version of a package may need a newer one.
lock: $(VENV)/made
	rm -rf $(VENV)/lock
	$(BIN)/python -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[bench,dev]'
	$(VENV)/lock/bin/python -m pip --disable-pip-version-check freeze --exclude-editable >requirements.lock
	rm -rf $(VENV)/lock

functions-hash: $(VENV)/dev
	$(BIN)/python db/deploy.py --record

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Files that say what .venv holds, so that nothing is installed twice.

$(VENV)/made:
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'pycheckout needs Python 3.11 or newer with its venv module (on Debian: apt-get install python3-venv); name another one with make PYTHON=python3.12.' >&2; \
	  exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/demo: $(VENV)/made pyproject.toml requirements.lock
	$(PIP) install --constraint requirements.lock --editable '.[demo]'
	@touch $@

$(VENV)/dev: $(VENV)/made pyproject.toml requirements.lock
	$(PIP) install --constraint requirements.lock --editable '.[dev]'
	@touch $@ $(VENV)/demo

# In each mode that this pgbouncer can do: prepared statements off, and on from 1.21.
.PHONY: test-pgbouncer
test-pgbouncer: $(VENV)/dev
	@$(BIN)/python tests/pgbouncer.py -n $(WORKERS) $(ARGS)

# The suite first, then hundreds of copies of db/, each with one guard taken out, and the suite red for each.
.PHONY: mutants
mutants: $(VENV)/dev
	@$(BIN)/python tests/mutants.py --workers $(WORKERS) $(ARGS)

# An hour or so: 100,000 checkouts with the server dying under them, then 80 failovers.
.PHONY: soak
soak: $(VENV)/dev
	@$(BIN)/python tests/soak.py $(ARGS)

# Twenty minutes and more: callers whose primary is killed or falls silent, with standbys of both kinds.
.PHONY: failover
failover: $(VENV)/dev
	@$(BIN)/python tests/failover.py $(ARGS)

# Ten minutes and more: a market moved back and forth under load, the command dead once at each step.
.PHONY: moves
moves: $(VENV)/dev
	@$(BIN)/python tests/moving.py $(ARGS)

# Uploads nothing; ARGS=--rehearse for a version that is unreleased.
.PHONY: release
release:
	@$(PYTHON) tests/release.py --look $(ARGS)
	@$(MAKE) --no-print-directory $(VENV)/dev
	@$(BIN)/python tests/release.py $(ARGS)

# The first two write docs/performance.md and the figures of docs/operations.md anew, the third, with ARGS=--write, its
# tables there.
.PHONY: bench bench-full overload
bench: $(VENV)/bench
	@$(BIN)/python -m benchmarks.run $(ARGS)

bench-full: $(VENV)/bench
	@$(BIN)/python -m benchmarks.run --full $(ARGS)

overload: $(VENV)/bench
	@$(BIN)/python -m benchmarks.overload $(ARGS)

$(VENV)/bench: $(VENV)/made pyproject.toml requirements.lock
	$(PIP) install --constraint requirements.lock --editable '.[bench]'
	@touch $@
