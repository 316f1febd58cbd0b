# `make` alone prints what there is.

LOCAL_DIR ?= .local
PG ?= 17
PORT_BASE ?= 17400
FUZZTIME ?= 10s
TESTFLAGS ?=
# The tests that make conformance runs, with every reader there is.
CONFORMANCE = OthersRead|HistoriesAreRead|ForeignWrit

export CGO_ENABLED = 0

# The programs of deploy/tools, pinned there, run on this module.
TOOL = go tool -modfile=deploy/tools/go.mod
# Modules with Go code of their own.
MODULES = . deploy/local/servers
# Documentation of packages and of what they export, beside the usual checks.
CHECKS = inherit,ST1000,ST1020,ST1021,ST1022

LOCAL = bin/local

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/millrace and bin/millrace-worker
	go build -trimpath -o bin/millrace ./starter
	go build -trimpath -o bin/millrace-worker ./worker

.PHONY: $(LOCAL)
$(LOCAL):
	@go build -o $@ ./deploy/local/cmd/local

.PHONY: up
up: $(LOCAL) ## start PostgreSQL, Kafka and Temporal here; PG=14..18, LOCAL_DIR, PORT_BASE
	@$(LOCAL) up --dir '$(LOCAL_DIR)' --pg '$(PG)' --port-base '$(PORT_BASE)'

.PHONY: down
down: $(LOCAL) ## stop what `make up` started; data stays
	@$(LOCAL) down --dir '$(LOCAL_DIR)'

.PHONY: demo
demo: build ## mirror a shop under load, kill the worker, prove both sides equal
	@go run ./deploy/local/demo

.PHONY: short
short: ## tests that need no server: seconds
	go test -short $(TESTFLAGS) ./...

.PHONY: prepare
prepare: $(LOCAL)
	@$(LOCAL) prepare

.PHONY: test
test: prepare ## every test, with servers of its own; needs Python 3.11 or later too
	go test -timeout 30m $(TESTFLAGS) $$(go list ./... | grep -v /worker/e2e)
	go test -timeout 30m $(TESTFLAGS) ./worker/e2e # by itself: it kills and times out what others would slow down

.PHONY: conformance
conformance: ## tables that deltalog wrote, read by delta-rs, DuckDB, Polars, Delta Kernel and Spark; needs Java 17 and Maven
	go test -v -count=1 -timeout 60m $(TESTFLAGS) -run '$(CONFORMANCE)' ./deltalog -conformance

.PHONY: race
race: prepare ## every test under the race detector; needs gcc
	CGO_ENABLED=1 go test -race -timeout 60m $(TESTFLAGS) ./...

.PHONY: lint
lint: ## formatting, vet, staticcheck, and that workflows are deterministic
	@failed=; \
	echo "gofumpt"; files="$$($(TOOL) gofumpt -l .)" || failed=1; \
	[ -z "$$files" ] || { echo "not formatted as gofumpt does:"; echo "$$files"; failed=1; }; \
	for m in $(MODULES); do \
	  echo "go vet $$m"; ( cd $$m && go vet ./... ) || failed=1; \
	  echo "staticcheck $$m"; ( cd $$m && go tool -modfile='$(CURDIR)/deploy/tools/go.mod' staticcheck -checks '$(CHECKS)' ./... ) || failed=1; \
	done; \
	[ -z "$$failed" ] && echo "workflowcheck" && $(TOOL) workflowcheck -config deploy/tools/workflowcheck.yaml ./workflows/...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10s) each
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u | while read -r dir; do \
	  for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$$dir"/*_test.go | cut -c6-); do \
	    echo "$$dir $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" || exit 1; \
	  done || exit 1; done

.PHONY: bench
bench: ## measure copy, capture, the whole way, upserts and logs, beside limits, delta-rs and Spark
	@go run ./deploy/bench

.PHONY: bench-full
bench-full: ## the same at full size, SCALE (1): upserts into 10 and 60 million rows; within an hour
	@SCALE="$${SCALE:-1}" go run ./deploy/bench --limit 60m

.PHONY: clean
clean: $(LOCAL) ## stop what `make up` started, and remove it, its data and bin
	@$(LOCAL) clean --dir '$(LOCAL_DIR)'
	@rm -rf bin
