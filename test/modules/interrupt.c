// SPDX-License-Identifier: GPL-2.0
/* Each kind that may be obtained there, in a timer and in a hard interrupt. */
#include "common.h"
#include <linux/dma-mapping.h>
#include <linux/dmapool.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/mempool.h>
#include <linux/netdevice.h>
#include <linux/percpu.h>
#include <linux/platform_device.h>
#include <linux/skbuff.h>
#include <linux/timer.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define timer_delete_sync del_timer_sync
#endif

static struct platform_device *device;
static struct dma_pool *blocks;
static mempool_t *pool;

/* One of each, obtained in interrupt context and given back by the process. */
static struct {
	void *slab, *object, *element, *block;
	dma_addr_t handle;
	struct page *page;
	void __percpu *percpu;
	struct sk_buff *skb;
} late;

/* Percpu memory takes a lock that a hard interrupt must not wait for. */
static void in_timer(struct timer_list *timer)
{
	dma_addr_t handle;
	void *p;

	KEEP(kmalloc(301, GFP_ATOMIC)); // LEAK 301 slab irq
	KEEP(kmem_cache_alloc(kedr_helper_cache, GFP_ATOMIC)); // LEAK 96 slab irq
	KEEP(kstrdup("text", GFP_ATOMIC)); // LEAK 5 slab irq
	KEEP(kasprintf(GFP_ATOMIC, "%d", 301)); // LEAK 4 slab irq
	KEEP(alloc_page(GFP_ATOMIC)); // LEAK 4096 page irq
	KEEP(__get_free_pages(GFP_ATOMIC, 1)); // LEAK 8192 page irq
	KEEP(__alloc_percpu_gfp(16, 8, GFP_NOWAIT)); // LEAK 16 percpu irq
	KEEP(alloc_skb(302, GFP_ATOMIC)); // LEAK 302 skb irq
	KEEP(mempool_alloc(pool, GFP_ATOMIC)); // LEAK ? mempool_element irq
	KEEP(dma_pool_alloc(blocks, GFP_ATOMIC, &handle)); // LEAK 64~ dma_pool_block irq

	kfree(kmalloc(303, GFP_ATOMIC));
	kmem_cache_free(kedr_helper_cache, kmem_cache_alloc(kedr_helper_cache, GFP_ATOMIC));
	kfree(kstrdup("text", GFP_ATOMIC));
	__free_page(alloc_page(GFP_ATOMIC));
	free_percpu(__alloc_percpu_gfp(16, 8, GFP_NOWAIT));
	kfree_skb(alloc_skb(304, GFP_ATOMIC));
	p = mempool_alloc(pool, GFP_ATOMIC);
	mempool_free(p, pool);
	p = dma_pool_alloc(blocks, GFP_ATOMIC, &handle);
	if (p)
		dma_pool_free(blocks, p, handle);

	late.percpu = __alloc_percpu_gfp(24, 8, GFP_NOWAIT);
}

static void in_irq_work(struct irq_work *work)
{
	void *p;

	KEEP(kmalloc(401, GFP_ATOMIC)); // LEAK 401 slab irq
	KEEP(kmem_cache_alloc(kedr_helper_cache, GFP_ATOMIC)); // LEAK 96 slab irq
	KEEP(kmemdup("text", 5, GFP_ATOMIC)); // LEAK 5 slab irq
	KEEP(alloc_page(GFP_ATOMIC)); // LEAK 4096 page irq
	KEEP(alloc_skb(402, GFP_ATOMIC)); // LEAK 402 skb irq
	KEEP(mempool_alloc(pool, GFP_ATOMIC)); // LEAK ? mempool_element irq

	kfree(kmalloc(403, GFP_ATOMIC));
	kmem_cache_free(kedr_helper_cache, kmem_cache_alloc(kedr_helper_cache, GFP_ATOMIC));
	__free_page(alloc_page(GFP_ATOMIC));
	dev_kfree_skb_irq(alloc_skb(404, GFP_ATOMIC));
	dev_kfree_skb_any(alloc_skb(405, GFP_ATOMIC));
	p = mempool_alloc(pool, GFP_ATOMIC);
	mempool_free(p, pool);

	late.slab = kmalloc(406, GFP_ATOMIC);
	late.object = kmem_cache_alloc(kedr_helper_cache, GFP_ATOMIC);
	late.element = mempool_alloc(pool, GFP_ATOMIC);
	late.page = alloc_page(GFP_ATOMIC);
	late.skb = alloc_skb(407, GFP_ATOMIC);
}

static void in_tasklet(unsigned long data)
{
	KEEP(kmalloc(501, GFP_ATOMIC)); // LEAK 501 slab irq
	kfree((void *)data);
}

static DEFINE_TIMER(timer, in_timer);
static struct irq_work work;
static struct tasklet_struct tasklet;

// RUN
// TOTAL allocations=40 leaks=17 wrong-frees=0
static int __init interrupt_init(void)
{
	device = platform_device_register_simple("kedr-interrupt", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	/* The device core gives this back, with the device. */
	blocks = dmam_pool_create("kedr", &device->dev, 64, 16, 0);
	pool = mempool_create_kmalloc_pool(4, 64);
	if (!blocks || !pool) {
		mempool_destroy(pool);
		platform_device_unregister(device);
		return -ENOMEM;
	}

	mod_timer(&timer, jiffies + 1);
	while (timer_pending(&timer))
		schedule_timeout_uninterruptible(1);
	timer_delete_sync(&timer);

	init_irq_work(&work, in_irq_work);
	irq_work_queue(&work);
	irq_work_sync(&work);

	/* Obtained here, given back there; 1 more, and its leak. */
	tasklet_init(&tasklet, in_tasklet, (unsigned long)kmalloc(502, GFP_KERNEL));
	tasklet_schedule(&tasklet);
	schedule_timeout_uninterruptible(2);
	tasklet_kill(&tasklet);

	kfree(late.slab);
	kmem_cache_free(kedr_helper_cache, late.object);
	mempool_free(late.element, pool);
	__free_page(late.page);
	kfree_skb(late.skb);
	free_percpu(late.percpu);
	return 0;
}

static void __exit interrupt_exit(void)
{
	mempool_destroy(pool);
	platform_device_unregister(device);
}

module_init(interrupt_init);
module_exit(interrupt_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: interrupts");
