#!/bin/sh
# Runs the tests of all modules with the race detector and prints how many passed.
# Output of a module is shown only if it fails; VERBOSE=1 shows all.
#
# A module with a tool behind its name is left out, and that is said at the end, where
# the tool is not installed. NEED_ALL=1 makes that a failure.
#
# Four tests of a package at a time, on whatever machine: most of them wait for a server.
set -u
cd "$(dirname "$0")/.." || exit 1
log=$(mktemp) || exit 1
all=$(mktemp) || exit 1
trap 'rm -f "$log" "$all"' EXIT
status=0
left_out=
for entry in . otel internal/pgtest internal/integration examples aurora/internal/schemacheck aurora/internal/functioncheck:python3 aurora/auroracdk:node; do
	module=${entry%%:*}
	tool=${entry#"$module"}
	tool=${tool#:}
	if [ -n "$tool" ] && ! command -v "$tool" >/dev/null; then
		left_out="$left_out
left out: $module, because there is no $tool on PATH"
		[ -z "${NEED_ALL:-}" ] || status=1
		continue
	fi
	echo "== ${module} =="
	if (cd "$module" && go vet ./... && go test -race -parallel 4 -timeout 20m -v ./...) >"$log" 2>&1; then
		if [ -n "${VERBOSE:-}" ]; then cat "$log"; else grep -E '^(ok|PostgreSQL for)|no test files|LEFT OUT' "$log"; fi
	else
		status=1
		cat "$log"
	fi
	cat "$log" >>"$all"
done
passed=$(grep -cE '^ *--- PASS' "$all")
failed=$(grep -cE '^ *--- FAIL' "$all")
skipped=$(grep -cE '^ *--- SKIP' "$all")
echo "$passed passed, $failed failed, $skipped skipped$left_out"
exit $status
