#!/bin/sh
# Runs the tests of what kedr does with machines, with its environment and what else is
# given to go test:
#   run.sh -timeout 30m ./test/machine
# On a busy host events can be lost, of which kedr says so, and what one does then is to run
# again: where that was said, what has failed, once.
set -u
out=$(mktemp)
trap 'rm -f "$out"' EXIT
go test -tags machine -count=1 "$@" >"$out" 2>&1
status=$?
cat "$out"
[ $status -ne 0 ] && grep -q -E 'does not let a probe interrupt itself|events were lost|LOST: ' "$out" || exit $status
failed=$(sed -n 's/^--- FAIL: \(Test[A-Za-z0-9_]*\) .*/^\1$/p' "$out" | paste -s -d '|')
[ -n "$failed" ] || exit $status
echo "again: $failed"
go test -tags machine -count=1 -run "$failed" "$@"
