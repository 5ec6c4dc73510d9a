// SPDX-License-Identifier: GPL-2.0
/* Network buffers: given back by the module in many ways, and by the kernel for it. */
#include "common.h"
#include <linux/delay.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <net/net_namespace.h>

static struct net_device *lo;

// TOTAL allocations=5 leaks=5
static noinline void leak_skbs(void)
{
	int err;

	KEEP(alloc_skb(100, GFP_KERNEL)); // LEAK 100 skb
	KEEP(alloc_skb_fclone(101, GFP_KERNEL)); // LEAK 101 skb
	KEEP(netdev_alloc_skb(lo, 102)); // LEAK 102 skb
	KEEP(dev_alloc_skb(9000)); // LEAK 9000 skb
	KEEP(alloc_skb_with_frags(104, 10000, 0, &err, GFP_KERNEL)); // LEAK 104 skb
}

// TOTAL allocations=13
static noinline void release_skbs(void)
{
	struct sk_buff *a, *b;
	int err;

	kfree_skb(alloc_skb(100, GFP_KERNEL));
	consume_skb(alloc_skb_fclone(101, GFP_KERNEL));
	dev_kfree_skb(netdev_alloc_skb(lo, 102));
	kfree_skb(alloc_skb_with_frags(104, 10000, 0, &err, GFP_KERNEL));
	dev_kfree_skb_any(alloc_skb(105, GFP_KERNEL));
	dev_consume_skb_any(alloc_skb(106, GFP_KERNEL));
	dev_kfree_skb_irq(alloc_skb(107, GFP_KERNEL));
	__kfree_skb(alloc_skb(108, GFP_KERNEL));
	kfree_skb(NULL);

	a = alloc_skb(109, GFP_KERNEL);
	b = alloc_skb(110, GFP_KERNEL);
	if (a)
		a->next = b;
	kfree_skb_list(a);

	/* These may go back to a processor's own stock. */
	local_bh_disable();
	napi_consume_skb(alloc_skb(111, GFP_ATOMIC), 1);
	napi_consume_skb(alloc_skb(112, GFP_ATOMIC), 64);
	napi_consume_skb(alloc_skb(113, GFP_ATOMIC), 0);
	local_bh_enable();
}

/* Copies have the size of what they are copies of: none is asked for. */
// TOTAL allocations=10 leaks=3
static noinline void copy_skbs(void)
{
	struct sk_buff *skb = alloc_skb(300, GFP_KERNEL);

	if (!skb)
		return;
	KEEP(skb_clone(skb, GFP_KERNEL)); // LEAK ? skb
	KEEP(skb_copy(skb, GFP_KERNEL)); // LEAK ? skb
	KEEP(pskb_copy(skb, GFP_KERNEL)); // LEAK ? skb
	kfree_skb(skb_clone(skb, GFP_KERNEL));
	kfree_skb(skb_copy(skb, GFP_KERNEL));
	consume_skb(pskb_copy(skb, GFP_KERNEL));
	kfree_skb(skb_copy_expand(skb, 64, 64, GFP_KERNEL));
	kfree_skb(skb_realloc_headroom(skb, 128));
	/* Shared, so that a clone is made and one reference given back. */
	kfree_skb(skb_share_check(skb_get(skb), GFP_KERNEL));
	kfree_skb(skb);
}

/* The second clone of a pair lies in one object with the first. */
// TOTAL allocations=4 leaks=1
static noinline void clone_pairs(void)
{
	struct sk_buff *skb, *clone;

	skb = alloc_skb_fclone(301, GFP_KERNEL);
	if (!skb)
		return;
	clone = skb_clone(skb, GFP_KERNEL);
	kfree_skb(skb);
	kfree_skb(clone);

	skb = alloc_skb_fclone(302, GFP_KERNEL);
	if (!skb)
		return;
	KEEP(skb_clone(skb, GFP_KERNEL)); // LEAK ? skb
	kfree_skb(skb);
}

/* The last reference counts. */
// TOTAL allocations=2 leaks=1
static noinline void counted(void)
{
	struct sk_buff *skb = alloc_skb(401, GFP_KERNEL); // LEAK 401 skb

	if (skb)
		kfree_skb(skb_get(skb));
	skb = alloc_skb(402, GFP_KERNEL);
	if (skb)
		kfree_skb(skb_get(skb));
	consume_skb(skb);
}

/* A buffer takes over the memory that it is built around. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define build(p) slab_build_skb(p)
#else
#define build(p) build_skb(p, 0)
#endif

// TOTAL allocations=4 leaks=2
static noinline void built(void)
{
	void *p = kmalloc(1024, GFP_KERNEL);

	if (p)
		kfree_skb(build(p));
	p = kmalloc(2048, GFP_KERNEL); // LEAK 2048 slab
	if (p)
		KEEP(build(p)); // LEAK ? skb
}

// TOTAL allocations=2 leaks=1
static noinline void built_of_fragment(void)
{
	void *p = netdev_alloc_frag(1024);

	if (p)
		kfree_skb(build_skb(p, 1024));
	p = netdev_alloc_frag(1024);
	if (p)
		KEEP(build_skb(p, 1024)); // LEAK 1024 skb
}

/* Whoever has the buffer at last gives it back. */
// TOTAL allocations=6
static noinline void hand_over(void)
{
	struct sk_buff_head queue;
	struct sk_buff *skb;
	int i;

	skb_queue_head_init(&queue);
	for (i = 0; i < 3; i++) {
		skb = alloc_skb(500 + i, GFP_KERNEL);
		if (skb)
			skb_queue_tail(&queue, skb);
	}
	skb_queue_purge(&queue);

	/* Nobody wants what arrives with this protocol. */
	for (i = 0; i < 3; i++) {
		skb = alloc_skb(600 + i, GFP_KERNEL);
		if (!skb)
			continue;
		skb_put_zero(skb, 60);
		skb_reset_mac_header(skb);
		skb->dev = lo;
		skb->protocol = htons(0x88b5);
		local_bh_disable();
		netif_rx(skb);
		local_bh_enable();
	}
}

// RUN
static int __init skb_test_init(void)
{
	rtnl_lock();
	lo = __dev_get_by_name(&init_net, "lo");
	rtnl_unlock();
	if (!lo)
		return -ENODEV;
	leak_skbs();
	release_skbs();
	copy_skbs();
	clone_pairs();
	counted();
	built();
	built_of_fragment();
	hand_over();
	return 0;
}

static void __exit skb_test_exit(void)
{
	synchronize_net();
	msleep(50);
}

module_init(skb_test_init);
module_exit(skb_test_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: network buffers");
