# ragmesh from the command line. `make` alone lists what there is.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
CONTRACT := $(shell find protos/ragmesh protos/third_party -name '*.proto' -o -type d)

.PHONY: help
help: ## List the targets.
	@sed -nE 's/^([a-z-]+):.* ## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

# --- The contract -----------------------------------------------------------------------------------

.PHONY: gen
gen: gen/ragmesh.pb ## Write the Python stubs and Envoy's descriptor set to gen/.

gen/ragmesh.pb: protos/generate.py $(CONTRACT) | $(VENV)
	$(PYTHON) protos/generate.py gen
