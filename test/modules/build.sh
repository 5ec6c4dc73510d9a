#!/bin/sh
# Builds the test modules and the example for one kernel, out of the tree:
#   build.sh KERNEL OUTPUT-DIRECTORY
# KERNEL is what kedr vm build takes, as 6.1-cloud; KEDR the program, if not bin/kedr.
set -eu
kernel=$1
out=$2
here=$(cd "$(dirname "$0")" && pwd)
kedr=${KEDR:-$here/../../bin/kedr}
mkdir -p "$out"
# With their times, so that what has not changed is not built again.
rm -f "$out"/*.c "$out"/*.h
cp -p "$here"/*.c "$here"/*.h "$here"/Makefile "$out"/
cp -p "$here"/../../examples/hello-kernel/hello.c "$out"/
# The example has a Makefile of its own; here it is one of many.
printf '\nobj-m += hello-kernel.o\nhello-kernel-objs := hello.o\n' >> "$out"/Makefile
"$kedr" vm build --kernel "$kernel" "$out" -- -s >"$out"/build.log 2>&1 || {
	cat "$out"/build.log >&2
	exit 1
}
if grep -q ': warning:' "$out"/build.log; then
	cat "$out"/build.log >&2
	exit 1
fi
