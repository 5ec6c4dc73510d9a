#!/bin/bash
# Makes a pair of devices, one end in a name space of its own, sends something through
# them, and takes them away.
set -e
ip netns add far
ip link add near type veth peer name end netns far
ip addr add 10.99.0.1/24 dev near
ip link set near up
ip -n far addr add 10.99.0.2/24 dev end
ip -n far link set end up
for i in 1 2 3 4 5; do
	# Nobody listens there: the answers are errors, which are packets, too.
	echo hello >/dev/udp/10.99.0.2/9 || true
done
test "$(cat /sys/class/net/near/statistics/tx_packets)" -ge 5
ip link del near
ip netns del far
