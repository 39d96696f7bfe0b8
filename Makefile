# make up     builds labctl, brings the lab up and shows it verified
# make test   passes all tests (installs what they compare with, where apt-get is);
#             make test-here leaves out those on real VMs, make test-vms all others
# make bench  a table of ratios against a floor measured in the same run

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null | sed 's/^v//;/^[0-9]*\./!s/^/0.1.0-dev+/' || true)
# Privileged work: nothing in front for root, sudo otherwise.
ROOT    := $(if $(filter 0,$(shell id -u)),,sudo)
ROOTENV := $(if $(ROOT),-exec "sudo -E",)

AGENTS  := agent/embedded/bin/agent-linux-amd64 agent/embedded/bin/agent-linux-arm64
GOFLAGS_STATIC := -trimpath -ldflags "-s -w -X main.version=$(or $(VERSION),0.1.0-dev)"
SOURCES := $(shell find agent bpf labctl provision topologies -name '*.go' -o -name '*.yaml' -o -name '*.json' -o -name '*.css' -o -name '*.o' -o -name '*.md' -o -name '*.sh' -o -name '*.tmpl' 2>/dev/null) go.mod go.sum

VMS := ./labctl/vmtest
ALL_BUT_VMS = $(filter-out %/labctl/vmtest,$(shell $(GO) list ./...))

GOTESTSUM   := gotest.tools/gotestsum@v1.13.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build up down test test-here test-vms race bench lint generate fuzz tools tools-vms clean
.DELETE_ON_ERROR:

build: bin/labctl

bin/labctl: $(AGENTS) $(SOURCES)
	CGO_ENABLED=0 $(GO) build $(GOFLAGS_STATIC) -o $@ ./labctl

agent/embedded/bin/agent-linux-%: $(SOURCES)
	CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build $(GOFLAGS_STATIC) -o $@ ./agent

up: build
	$(ROOT) ./bin/labctl up
	$(ROOT) ./bin/labctl verify

down: build
	$(ROOT) ./bin/labctl down

test: tools-vms $(AGENTS)
	$(GO) run $(GOTESTSUM) --format pkgname --jsonfile bin/test.json --raw-command -- .ci/gotest $(ROOTENV)

# -count=1: what passed before says nothing of this kernel and its tools now.
test-here: tools $(AGENTS)
	$(GO) run $(GOTESTSUM) --format pkgname --jsonfile bin/test.json -- $(ROOTENV) -count=1 -timeout 20m $(ALL_BUT_VMS)

test-vms: tools-vms $(AGENTS)
	$(GO) run $(GOTESTSUM) --format testname --jsonfile bin/test-vms.json -- $(ROOTENV) -count=1 -timeout 25m $(VMS)

# Without the detector's second of sleep at each exit: tests start many processes.
race: tools $(AGENTS)
	GORACE=atexit_sleep_ms=0 $(GO) run $(GOTESTSUM) --format pkgname -- $(ROOTENV) -race -timeout 30m $(ALL_BUT_VMS)

# Prints what missed its goal, and fails only where it could not measure.
bench: build
	$(GO) build -o bin/bench ./labctl/bench
	$(ROOT) ./bin/bench

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "gofmt -w them"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	GOOS=darwin $(GO) vet ./labctl/... ./provision/... ./topologies/...
	GOOS=windows $(GO) vet ./labctl/... ./provision/... ./topologies/...

# What is generated is committed, and CI compares.
generate:
	$(GO) generate ./...

# Ten seconds for each fuzz target.
fuzz:
	@for f in $$(grep -rl '^func Fuzz' --include '*_test.go' .); do \
	  for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$f); do \
	    echo "$$t in $$(dirname $$f)"; $(GO) test -run '^$$' -fuzz "^$$t$$" -fuzztime 10s ./$$(dirname $$f) || exit 1; \
	  done; \
	done
	$(GO) test $(ROOTENV) -count=1 ./labctl/explain -run Property -args -topologies 1000

# What the tests need beside Go.
tools:
	@mkdir -p bin
	@.ci/tools

tools-vms:
	@mkdir -p bin
	@.ci/tools vms

clean:
	rm -rf bin $(AGENTS)
