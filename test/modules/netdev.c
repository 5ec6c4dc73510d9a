// SPDX-License-Identifier: GPL-2.0
/* Network devices, and buffers for their polling functions. */
#include "common.h"
#include <linux/etherdevice.h>
#include <linux/netdevice.h>

static netdev_tx_t xmit(struct sk_buff *skb, struct net_device *dev)
{
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops ops = {
	.ndo_start_xmit = xmit,
};

// TOTAL allocations=3 leaks=3
static noinline void leak_devices(void)
{
	KEEP(alloc_netdev(40, "kedr%d", NET_NAME_UNKNOWN, ether_setup)); // LEAK ? netdev
	KEEP(alloc_netdev_mqs(40, "kedr%d", NET_NAME_UNKNOWN, ether_setup, 2, 2)); // LEAK ? netdev
	KEEP(alloc_etherdev(40)); // LEAK ? netdev
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
// TOTAL allocations=2 leaks=1
static noinline void dummies(void)
{
	struct net_device *dev = alloc_netdev_dummy(0);

	if (dev)
		free_netdev(dev);
	KEEP(alloc_netdev_dummy(0)); // LEAK ? netdev
}
#else
static void dummies(void) { }
#endif

// TOTAL allocations=3
static noinline void free_devices(void)
{
	struct net_device *dev;

	dev = alloc_netdev(40, "kedr%d", NET_NAME_UNKNOWN, ether_setup);
	if (dev)
		free_netdev(dev);
	dev = alloc_netdev_mqs(40, "kedr%d", NET_NAME_UNKNOWN, ether_setup, 2, 2);
	if (dev)
		free_netdev(dev);
	dev = alloc_etherdev(40);
	if (dev)
		free_netdev(dev);
}

/* One that is freed by its owner, and one by the kernel. */
// TOTAL allocations=2
static noinline void register_devices(void)
{
	struct net_device *dev;
	int i;

	for (i = 0; i < 2; i++) {
		dev = alloc_etherdev(40);
		if (!dev)
			return;
		dev->netdev_ops = &ops;
		dev->needs_free_netdev = i == 1;
		if (register_netdev(dev)) {
			free_netdev(dev);
			continue;
		}
		unregister_netdev(dev);
		if (i == 0)
			free_netdev(dev);
	}
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
#define add_napi(dev, napi, poll) netif_napi_add(dev, napi, poll)
#else
#define add_napi(dev, napi, poll) netif_napi_add(dev, napi, poll, 64)
#endif

static int poll(struct napi_struct *napi, int budget)
{
	return 0;
}

static struct napi_struct napi;

// TOTAL allocations=5 leaks=2
static noinline void polled(void)
{
	struct net_device *dev = alloc_etherdev(0);

	if (!dev)
		return;
	add_napi(dev, &napi, poll);
	local_bh_disable();
	KEEP(napi_alloc_skb(&napi, 61)); // LEAK 61 skb
	KEEP(napi_alloc_skb(&napi, 5000)); // LEAK 5000 skb
	kfree_skb(napi_alloc_skb(&napi, 61));
	napi_consume_skb(napi_alloc_skb(&napi, 1500), 64);
	local_bh_enable();
	netif_napi_del(&napi);
	free_netdev(dev);
}

// RUN
static int __init netdev_init(void)
{
	leak_devices();
	dummies();
	free_devices();
	register_devices();
	polled();
	return 0;
}

static void __exit netdev_exit(void)
{
}

module_init(netdev_init);
module_exit(netdev_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: network devices");
