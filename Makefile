# `make demo` and `make test` set up what they need. Without make, from this folder:
#
#   python3 -m venv .venv && . .venv/bin/activate
#   pip install -c constraints.txt -e ".[all]"
#   mm demo      or      ruff check && ruff format --check && pyright && pytest

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo test

demo: .venv/installed
	mm demo

test: .venv/installed
	ruff check && ruff format --check && pyright
	pytest

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -c constraints.txt -e ".[all]"
	touch $@
