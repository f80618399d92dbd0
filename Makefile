# Sallyport. `make help` lists what there is to call.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := node_modules/.bin
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: help check test e2e demo bench generate build image
help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

node_modules/.installed: package.json package-lock.json $(wildcard */package.json)
	npm ci --no-fund --no-audit
	@touch $@

check: node_modules/.installed ## types, style, imports, unused code, generated files
	tsc -p .
	biome check .
	depcruise --no-progress crds control policy sidecar operator cli e2e
	knip
	npm run --silent generate -- --check

test: node_modules/.installed ## every test that needs no cluster and no root, with a real PostgreSQL
	vitest run

generate: node_modules/.installed ## types, reference and bundle from crds/
	npm run --silent generate

demo: node_modules/.installed ## the main job on a real PostgreSQL (ARGS=--tour: walk through and exit)
	tsx e2e/demo/main.ts $(ARGS)

bench: node_modules/.installed ## ratios to direct access and PgBouncer, printed and kept in bench-results.json
	tsx e2e/bench/main.ts $(ARGS)

e2e: build ## every scenario on a real cluster, taken up and down (ARGS=--keep: leave it; ARGS=<file>: only that)
	tsx e2e/main.ts $(ARGS)

image: build ## the container image, with docker, podman or buildah, or as an OCI archive in dist/
	tsx e2e/image/main.ts $(ARGS)

build: node_modules/.installed ## the gateway and command line, bundled into dist/
	npm run --silent build
