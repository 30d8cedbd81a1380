# meshhost. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO      ?= go
TOOLS   := $(CURDIR)/.tools
PLUGINS := $(notdir $(patsubst %/main.go,%,$(wildcard plugins/*/main.go)))
PKGS    := ./...

# The race detector needs cgo and a C compiler.
RACE := $(shell if [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v $$($(GO) env CC) >/dev/null 2>&1; then echo -race; fi)

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: dev
dev: build ## run a daemon with a broker of its own, all plugins and an echo peer
	bin/meshhost -dev

.PHONY: build
build: ## write bin/meshhost and bin/plugins/meshhost-*
	@mkdir -p bin/plugins
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/meshhost ./cmd/meshhost
	@set -e; for p in $(PLUGINS); do \
		echo "CGO_ENABLED=0 $(GO) build -trimpath -o bin/plugins/meshhost-$$p ./plugins/$$p"; \
		CGO_ENABLED=0 $(GO) build -trimpath -o bin/plugins/meshhost-$$p ./plugins/$$p; \
	done

.PHONY: test
test: ## all tests but the long ones
	@if [ -n "$(RACE)" ]; then echo "race detector: on"; else echo "race detector: off, it needs cgo and a C compiler"; fi
	.ci/test $(RACE) -timeout 9m $(PKGS)

.PHONY: fmt
fmt: tools ## format Go and HCL
	$(TOOLS)/gofumpt -w cmd examples host plugins sdk
	$(GO) run ./cmd/meshhost fmt -w mesh.hcl.example

.PHONY: lint
lint: tools ## vet, staticcheck, format, protos, module files
	$(GO) vet ./...
	$(TOOLS)/staticcheck ./...
	@out="$$($(TOOLS)/gofumpt -l cmd examples host plugins sdk | grep -v '\.pb\.go$$')"; if [ -n "$$out" ]; then echo "not formatted, run make fmt:"; echo "$$out"; exit 1; fi
	cd sdk/proto && $(TOOLS)/buf lint
	$(GO) mod tidy -diff

.PHONY: generate
generate: tools ## write the Go code of the protos
	cd sdk/proto && PATH="$(TOOLS):$$PATH" $(TOOLS)/buf generate

.PHONY: generate-check
generate-check: generate ## fail if generated code differs from what is committed
	@out="$$(git status --porcelain -- sdk/proto)"; if [ -n "$$out" ]; then echo "generated code differs, commit the result of make generate:"; echo "$$out"; git diff --stat -- sdk/proto; exit 1; fi

.PHONY: tools
tools: $(TOOLS)/.stamp
$(TOOLS)/.stamp: .ci/tools/go.mod .ci/tools/go.sum
	cd .ci/tools && GOBIN=$(TOOLS) $(GO) install tool
	@touch $@

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (default 30s)
	.ci/fuzz $(or $(FUZZTIME),30s)

.PHONY: bench
bench: build ## measure real binaries over real sockets, beside their ceilings
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m -v ./cmd/meshhost/e2e

.PHONY: chaos
chaos: build ## kill daemons and plugins under load, ROUNDS (default 20) a victim
	MESHHOST_CHAOS_ROUNDS=$(or $(ROUNDS),20) .ci/test -count 1 -run 'TestChaos' -timeout 60m ./cmd/meshhost/e2e

.PHONY: powercut
powercut: build ## cut the power of the stores under load, ROUNDS (default 50) each, and damage their files
	MESHHOST_POWERCUT_ROUNDS=$(or $(ROUNDS),50) .ci/test -count 1 -p 1 -run 'TestPowerCut|TestDiskFaults|TestADamagedFile|TestAFileOfANewer|TestOpenRefuses' -timeout 30m ./cmd/meshhost/e2e ./host/store ./plugins/outbox-sqlite

.PHONY: ratelimit
ratelimit: build ## send 120 messages through a broker that takes 60 a minute; two minutes
	MESHHOST_RATELIMIT=1 .ci/test -count 1 -run 'TestRateLimit$$' -timeout 10m ./cmd/meshhost/e2e

.PHONY: sabotage
sabotage: ## build with each promise broken and prove that a test notices
	MESHHOST_SABOTAGE=1 .ci/test -count 1 -run 'TestSabotage' -timeout 30m ./cmd/meshhost/e2e

.PHONY: fresh
fresh: ## follow the README in an empty directory with empty caches; takes minutes
	.ci/fresh

.PHONY: ci
ci: ## what CI runs: build, lint, generated code, tests, fuzzing, short chaos and power cut runs, the rate limit, sabotage
	CGO_ENABLED=0 $(GO) build ./...
	$(MAKE) build lint generate-check test
	$(MAKE) fuzz FUZZTIME=$(or $(FUZZTIME),30s)
	$(MAKE) chaos ROUNDS=$(or $(ROUNDS),5)
	$(MAKE) powercut ROUNDS=$(or $(ROUNDS),10)
	$(MAKE) ratelimit
	$(MAKE) sabotage
