#!/bin/sh
# Runs the conformance tests in a machine with one kernel, whose modules have been built:
#   run.sh KERNEL[:kprobe]
# All of them; with KEDR_CORE, the kernels to be tested whole, on others those tests that
# go by the kernel.
# What they print is kept in build/conformance, for make kernels; what of it is not a pass
# is shown. On a busy host events can be lost (Linux 7 preempts programs in trampolines), of
# which kedr says so, and what one does then is to run again. So it is where the kernel dies of
# flags that an old emulator makes up (docs/decisions.md): no processor has those of the upper bits.
set -u
what=$1
kernel=${what%:*}
here=$(cd "$(dirname "$0")/../.." && pwd)
modules=$here/build/modules/$(echo "$kernel" | tr / -)
out=$here/build/conformance/$(echo "$what" | tr /: --).txt
arch=$(go env GOARCH)
kedr=$here/bin/kedr
flags=
tests=.
by_kernel='TestRun$|TestKernel|TestWalkthrough|TestFilesystem|TestBothWays|TestReload|TestLifecycle|TestForgotten|TestCatalog|TestMount|TestIncomplete'
case " ${KEDR_CORE-$what} " in
*" $what "*) ;;
*) tests="$by_kernel|TestStacks|TestTrace\$|TestElsewhere|TestGroups" ;;
esac
case $what in
*/i386)
	arch=386
	kedr=$kedr-386
	;;
*:kprobe)
	flags="--backend=kprobe --btf=none"
	# What does not go by the back end is not tested anew.
	tests=$by_kernel
	;;
esac
cd "$here" || exit 1
mkdir -p build/conformance
: >"$out"
try=1
while :; do
	if [ $try -eq 1 ]; then
		echo "conformance on $what"
	else
		echo "conformance on $what, again: $tests"
	fi
	KEDR=$kedr KEDR_FLAGS=$flags KEDR_MODULES=$modules GOARCH=$arch CGO_ENABLED=0 \
		go test -v -tags guest -count=1 -timeout 30m -run "$tests" \
		-exec "$here/bin/kedr vm exec --kernel $kernel --" ./test/conformance >"$out.part" 2>&1
	status=$?
	cat "$out.part" >>"$out"
	[ $status -ne 0 ] || break
	grep -v -E '^ *(=== |--- PASS)' "$out.part"
	if grep -q -E 'EFLAGS: (00[4-9a-f]|0[1-9a-f].|[1-9a-f]..)[0-9a-f]{5}' "$out.part" && [ $try -lt 3 ]; then
		try=$((try + 1))
		continue
	fi
	grep -q -E 'does not let a probe interrupt itself|events were lost|exit status 4' "$out.part" && [ $try -lt 8 ] || break
	# Only what has failed: of a test that has parts, those.
	failed=$(sed -n 's/^ *--- FAIL: \([^ ]*\) .*/\1/p' "$out.part" | awk '
		{ name[NR] = $0 }
		END {
			for (i in name) {
				leaf = 1
				for (j in name)
					if (index(name[j], name[i] "/") == 1)
						leaf = 0
				if (!leaf)
					continue
				pattern = name[i]
				gsub("/", "$/^", pattern)
				printf "%s^%s$", sep, pattern
				sep = "|"
			}
		}')
	tests=${failed:-$tests}
	try=$((try + 1))
done
echo "conformance on $what: $(tail -n 1 "$out.part")"
rm -f "$out.part"
exit $status
