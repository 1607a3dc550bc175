#!/bin/sh
# Runs the tests of all modules with the race detector and prints how many passed.
# Output of a module is shown only if it fails; VERBOSE=1 shows all.
set -u
cd "$(dirname "$0")/.." || exit 1
log=$(mktemp) || exit 1
all=$(mktemp) || exit 1
trap 'rm -f "$log" "$all"' EXIT
status=0
for module in . internal/pgtest internal/integration examples aurora/internal/schemacheck; do
	echo "== ${module} =="
	if (cd "$module" && go vet ./... && go test -race -timeout 15m -v ./...) >"$log" 2>&1; then
		if [ -n "${VERBOSE:-}" ]; then cat "$log"; else grep -E '^(ok|PostgreSQL for)|no test files' "$log"; fi
	else
		status=1
		cat "$log"
	fi
	cat "$log" >>"$all"
done
passed=$(grep -cE '^ *--- PASS' "$all")
failed=$(grep -cE '^ *--- FAIL' "$all")
skipped=$(grep -cE '^ *--- SKIP' "$all")
echo "$passed passed, $failed failed, $skipped skipped"
exit $status
