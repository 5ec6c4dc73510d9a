#!/bin/sh
# A driver's test under kedr, in a disposable machine, for CI jobs on Debian:
#   ci.sh SOURCE-DIR MODULE [param=value ...] [-- TEST [ARG ...]]
# builds the modules in SOURCE-DIR for $KERNEL, runs TEST with MODULE (of SOURCE-DIR, without
# .ko) loaded, leaves reports in $REPORTS, and ends with kedr's exit status. What is in
# kedr.supp and kedr-baseline.json of SOURCE-DIR, where they are, does not count.
set -eu

kernel=${KERNEL:-6.1}
reports=${REPORTS:-kedr-reports}
formats=${FORMATS:-json sarif junit}
kedr=${KEDR:-kedr}
source=$1
module=$2
shift 2

# make and gcc build the module; the rest is what a machine takes.
missing=
for package in qemu-system-x86 kmod make gcc libc6-dev; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
fi

"$kedr" vm build --kernel "$kernel" "$source"

set -- "$source/$module.ko" "$@"
[ ! -f "$source/kedr.supp" ] || set -- --suppressions "$source/kedr.supp" "$@"
[ ! -f "$source/kedr-baseline.json" ] || set -- --baseline "$source/kedr-baseline.json" "$@"
mkdir -p "$reports"
for format in $formats; do
	set -- --report "$format=$reports/kedr.$format" "$@"
done
# A machine that does not end would hold the job.
exec "$kedr" run --vm=always --kernel "$kernel" --timeout 20m "$@"
