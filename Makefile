# make test        all tests of all modules, race detector on, with a real PostgreSQL
# make lint        golangci-lint over all modules
# make bench       what our pool costs beside plain pgxpool, in one run
# make rotations   100 rotations of a secret under load, in three set-ups: ten minutes
# make bench-proxytest  proxytest beside PgBouncer, and what idle clients cost
# make pgx-suite   pgx's own tests through proxytest
# make clients     psql, pgbench and what is installed of Python's and Node's drivers through proxytest: a table
# make storm       10,000 connects per second for 10 s at proxytest, in five ways: the rates that were reached
# make bench-failover  our pool and what people use today through a dozen faults, 10 runs of each (45 min; RUNS=1 for one)
# make failover    the same for five faults, once, as a page: examples/failover.html
# make quickstart  the demonstration: cold start and failover, on a real PostgreSQL

MODULES := . otel internal/pgtest internal/integration examples aurora/internal/schemacheck aurora/internal/functioncheck aurora/auroracdk
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: test lint bench bench-failover bench-proxytest clients storm failover pgx-suite rotations quickstart tidy fuzz

test:
	@scripts/test.sh

lint:
	@for m in $(MODULES); do echo "== $$m =="; (cd $$m && go run $(GOLANGCI) run --config "$(CURDIR)/.golangci.yml" ./...) || exit 1; done

bench:
	cd internal/integration && go test -run '^$$' -bench . -benchtime 10s .
	go test -run '^$$' -bench . ./secrets

rotations:
	cd internal/integration && AURORAPGX_ROTATIONS=100 go test -race -count 1 -timeout 40m -run 'Rotations(Direct|BehindAProxy)' -v .

# About three minutes; needs pgbench and pgbouncer (Debian: postgresql-contrib, pgbouncer), with which
# PostgreSQL comes. Not in a container: the process that publishes its port would be a third proxy.
bench-proxytest:
	cd internal/integration && PGTEST_MODE=installed go run ./proxybench

# Some four minutes, most of them for tests of what RDS Proxy has not, which wait for it.
pgx-suite:
	cd internal/integration && go run ./pgxsuite

clients:
	cd internal/integration && go run ./clients

# Without the race detector, which would take most of the machine.
storm:
	cd internal/integration && AURORAPGX_STORM=10s go test -count 1 -run TestHostileConnects -v .

RUNS := 10
bench-failover:
	go -C examples run ./failover -runs $(RUNS) -faults all -html failover.html

failover:
	go -C examples run ./failover

quickstart:
	go -C examples run ./quickstart

fuzz:
	go test -run '^$$' -fuzz FuzzConnString -fuzztime 30s ./proxy
	go test -run '^$$' -fuzz FuzzParseEndpoint -fuzztime 30s ./proxy
	go test -run '^$$' -fuzz FuzzParse$$ -fuzztime 30s ./secrets
	go test -run '^$$' -fuzz FuzzLexer -fuzztime 30s -fuzzminimizetime 1s ./proxy/proxytest
	go test -run '^$$' -fuzz FuzzQuoted -fuzztime 30s -fuzzminimizetime 1s ./proxy/proxytest
	go test -run '^$$' -fuzz 'FuzzSpec$$' -fuzztime 30s -fuzzminimizetime 1x ./aurora
	go test -run '^$$' -fuzz FuzzSpecFields -fuzztime 30s -fuzzminimizetime 1x ./aurora
	go test -run '^$$' -fuzz FuzzMessages -fuzztime 30s -fuzzminimizetime 5s ./proxy/proxytest

tidy:
	@for m in $(MODULES); do (cd $$m && go mod tidy) || exit 1; done
