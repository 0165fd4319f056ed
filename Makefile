# The ways into this repository. A machine needs make and Python 3.11 or newer; everything else goes into .venv.

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,$(shell \
            $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))

.DEFAULT_GOAL := help
.PHONY: help demo test soak prove check lint types format docs lock clean

help: ## Say what there is
	@awk -F ':[^#]*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Train a classifier on handwritten digits; run again, it goes on from its checkpoint
	$(BIN)/python examples/digits/main.py

test: $(READY) ## Run the whole test suite
	$(BIN)/python -m pytest

soak: $(READY) ## Send a million events through listeners that fail at random; takes some minutes
	$(BIN)/python tests/services/soak.py

prove: $(READY) ## Kill a training a thousand times at random instants, and compare it with one left alone; some minutes
	folder=$$(mktemp -d) && seed=$$(date +%s) && echo "seed $$seed" && export OMP_NUM_THREADS=1 PYTHONPATH=. \
	  && $(BIN)/python tests/scenarios/killing.py $$folder 1000 $$seed \
	  && $(BIN)/python tests/scenarios/killing.py $$folder/workers 50 $$seed 2 && rm -rf $$folder

check: lint types docs test ## Check everything that must hold: format, lint, types, docs and tests

lint: $(READY) ## Look for what is not written as the house writes it
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(READY) ## Let two type checkers read the library and what is promised of it
	$(BIN)/mypy
	$(BIN)/pyright

format: $(READY) ## Format the code, and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Strict mode stops at broken links and references; what griffe finds wrong in a docstring it only prints.
docs: $(READY) ## Build the site into site/, strictly
	@log=$$(NO_COLOR=1 $(BIN)/zensical build --clean --strict 2>&1); status=$$?; echo "$$log"; \
	if echo "$$log" | grep -q '^griffe:'; then echo 'docs: a docstring does not fit its function (above)'; exit 1; fi; \
	exit $$status

# One environment for everything, and no package that constraints.txt does not name. It is made anew from nothing when
# its Python is gone, brought up to date when what it is made from changes, and otherwise left alone.
# pip, from this version on, knows dependency groups; it byte-compiles also where PYTHONDONTWRITEBYTECODE is set.
$(READY): pyproject.toml constraints.txt
	@$(if $(PYTHON),,echo 'make: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3'; exit 1)
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo 'Installing into $(VENV), which takes a minute or two ...'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --compile --editable '.[all]' --group dev
	@touch $@

# The CPU build of torch is small where a registry has it; so torch comes first, and what follows finds it there.
lock: ## Resolve every dependency anew, but for torch, into constraints.txt
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-lock/bin/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(VENV)-lock/bin/python -m pip install --quiet --editable '.[all]' --group dev
	{ sed -n '/^#/p' constraints.txt; \
	  $(VENV)-lock/bin/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//' | LC_ALL=C sort -f; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-lock

clean: ## Remove all that is made: the environment, the site, caches (what training wrote stays)
	rm -rf $(VENV) $(VENV)-lock site .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
