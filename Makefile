# make test        all tests of all modules, race detector on, with a real PostgreSQL
# make lint        golangci-lint over all modules
# make bench       what our pool costs beside plain pgxpool, in one run
# make quickstart  the demonstration: cold start and failover, on a real PostgreSQL

MODULES := . internal/pgtest internal/integration examples
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: test lint bench quickstart tidy fuzz

test:
	@scripts/test.sh

lint:
	@for m in $(MODULES); do echo "== $$m =="; (cd $$m && go run $(GOLANGCI) run --config "$(CURDIR)/.golangci.yml" ./...) || exit 1; done

bench:
	cd internal/integration && go test -run '^$$' -bench . -benchtime 10s .

quickstart:
	go -C examples run ./quickstart

fuzz:
	go test -run '^$$' -fuzz FuzzConnString -fuzztime 30s ./proxy
	go test -run '^$$' -fuzz FuzzParseEndpoint -fuzztime 30s ./proxy
	go test -run '^$$' -fuzz FuzzLexer -fuzztime 30s -fuzzminimizetime 1s ./proxy/proxytest
	go test -run '^$$' -fuzz FuzzQuoted -fuzztime 30s -fuzzminimizetime 1s ./proxy/proxytest

tidy:
	@for m in $(MODULES); do (cd $$m && go mod tidy) || exit 1; done
