# make train                              set up .venv once (about a minute), then train
# make train ARGS="dqn --env Acrobot-v1"  the same with a command line of your own
# make test                               set up the test tools too, then style, types and tests
#
# Needs make, a C compiler and Python 3.11 or newer: make PYTHON=/path/to/python3.11 train

PYTHON ?= python3
ARGS   ?=
VENV   := .venv
RUN    := $(VENV)/bin/python
# Errors still show. Scripts in .venv/bin are never used: they hold absolute paths.
PIP    := $(RUN) -m pip -qq --disable-pip-version-check --no-input install -c constraints.txt
SOURCES := pyproject.toml constraints.txt
# The extras that the tests need: sweeps, clusters, and every family of simulators.
EXTRAS := sweep,ray,atari,box2d,control,envpool,grid,jax,memory,minatar,mujoco

# One thread a process: two on a busy core are slower than one. Modules of other places stay out.
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
unexport PYTHONPATH PYTHONHOME

# A .venv that came along with a copied or moved checkout still points to the old one: start anew.
ifneq ($(shell cat $(VENV)/.checkout 2>/dev/null),$(CURDIR))
$(VENV)/.checkout: FORCE
endif

.PHONY: train test FORCE
.DELETE_ON_ERROR:

train: $(VENV)/.run
	@$(RUN) -m runners.train $(ARGS)

test: $(VENV)/.test
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(RUN) -m pytest -n auto

$(VENV)/.run: $(SOURCES) $(VENV)/.checkout
	@echo "Installing into $(VENV): once, about two minutes ..." >&2
	@$(PIP) -e .
	@touch $@

# What the tests need contains what training needs, so this serves `make train` as well.
$(VENV)/.test: $(SOURCES) $(VENV)/.checkout
	@echo "Installing into $(VENV) with the test tools: once, about two minutes ..." >&2
	@$(PIP) -e '.[test,$(EXTRAS)]'
	@touch $(VENV)/.run $@

$(VENV)/.checkout:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "error: '$(PYTHON)' not found; name a Python >= 3.11: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$("$(PYTHON)" --version 2>&1) is too old; name a Python >= 3.11:" \
	    "make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV)
	@printf '%s' "$(CURDIR)" > $@
