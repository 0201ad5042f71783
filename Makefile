# Development on a CPU-only machine. `make help` lists the targets.
# Where there is a CUDA GPU, `pip install -e '.[cuda,test]'` is all; see tools/cpu/README.md.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
ARGS =
STARTED := $(shell date +%s)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install check test test-all hard odd soak lint docs-check format demo clients seams clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## build .venv: vLLM for CPU, this package (editable), the test tools

$(STAMP): pyproject.toml $(wildcard tools/cpu/*.py tools/cpu/*.pth tools/cpu/*.toml)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile ./tools/cpu --editable '.[test]'
# pip would compile 23,000 files one by one. Some packages carry files that no Python takes.
	-$(BIN)/python -m compileall -q -j 0 -x '/tests?/' .venv/lib >/dev/null
# CUDA builds that break transformers next to a CPU torch: tools/cpu/README.md, third row.
	$(BIN)/python -m pip uninstall --yes torchaudio torchcodec
	@touch $@

check: install ## everything that the gate runs, on two cores
	$(BIN)/python -m tools.gate --since $(STARTED)

test: install ## run every test of the gate, one after the other; ARGS="-k name" for some of them
	$(BIN)/python -m pytest $(ARGS)

test-all: install ## as check, with the tests that are too slow for the gate: CONTRIBUTING.md lists them
	$(BIN)/python -m tools.gate --since $(STARTED) --all

hard: install ## use servers hard: every try of tests/hard, of which `make test` has a few; takes an hour
	SGL_HARD=1 $(BIN)/python -m pytest -s tests/hard $(ARGS)

odd: install ## the same odd requests to plain vLLM and to three guided pairs, compared; ARGS="--pairs crossed" for one
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m tests.hard.against_plain $(ARGS)

soak: install ## twenty minutes of everything at once, with memory sampled; ARGS="--minutes 5" for less
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m tests.hard.soak $(ARGS)

lint: install ## check style, formatting, types, who may import what, and the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_imports.py
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python tools/check_links.py
	$(BIN)/python -m tools.check_docs

docs-check: install ## check what the documentation says: links, and that its commands, flags and keys exist
	$(BIN)/python tools/check_links.py
	$(BIN)/python -m tools.check_docs

format: install ## fix what `make lint` can fix by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: install ## serve a pair, ask it about test images with and without SGL, explain one answer (demo-out/)
	$(BIN)/python -m examples.demo $(ARGS)

clients: install ## stock clients against one server (build/clients); ARGS="litellm guidellm" for some of them
	$(BIN)/python -m examples.clients $(ARGS)

seams: install ## name what another vLLM release changes for us: VERSION=0.33.0
	@test -n "$(VERSION)" || { echo 'make seams: expected a release of vLLM: VERSION=0.33.0' >&2; exit 2; }
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --dest build/seams vllm==$(VERSION)
	$(BIN)/python tools/check_seams.py build/seams/vllm-$(VERSION)-*.whl

clean: ## remove .venv and everything built
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
