#!/bin/sh
# What users do with the driver, and what they do wrong.
set -e
echo hello >/dev/mydriver
test "$(cat /dev/mydriver)" = hello
for i in 1 2 3; do
	if printf 'no end of line' >/dev/mydriver; then
		echo 'half a line was taken' >&2
		exit 1
	fi
done 2>/dev/null
