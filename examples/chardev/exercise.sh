#!/bin/sh
# The driver's test, as root, with the module loaded. It knows nothing of kedr.
set -eu
dev=/dev/chardev

fail() {
	echo "exercise.sh: $*" >&2
	exit 1
}

printf 'hello' >$dev
[ "$(dd if=$dev bs=64 count=1 2>/dev/null)" = hello ] || fail "what was written is not what is read"

# Longer than what the reader takes: an error, and the message is gone.
printf 'far too long' >$dev
if dd if=$dev bs=4 count=1 2>/dev/null; then
	fail "a message that does not fit was read"
fi
[ -z "$(dd if=$dev bs=64 count=1 2>/dev/null)" ] || fail "the message is still there"

# Nobody reads this one.
printf 'goodbye' >$dev
echo "exercise.sh: passed"
