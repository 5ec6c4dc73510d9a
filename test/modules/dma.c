// SPDX-License-Identifier: GPL-2.0
/* Memory that a device can reach, and pools of it. */
#include "common.h"
#include <linux/dma-mapping.h>
#include <linux/dmapool.h>
#include <linux/platform_device.h>

static struct device *dev;

// TOTAL allocations=4 leaks=4
static noinline void leak_dma(void)
{
	dma_addr_t handle;

	KEEP(dma_alloc_coherent(dev, 5001, &handle, GFP_KERNEL)); // LEAK 5001 dma
	KEEP(dma_alloc_wc(dev, 5002, &handle, GFP_KERNEL)); // LEAK 5002 dma
	KEEP(dma_alloc_attrs(dev, 5003, &handle, GFP_KERNEL, DMA_ATTR_NO_WARN)); // LEAK 5003 dma
	KEEP(dma_alloc_pages(dev, 4096, &handle, DMA_BIDIRECTIONAL, GFP_KERNEL)); // LEAK 4096 dma
}

// TOTAL allocations=4
static noinline void free_dma(void)
{
	dma_addr_t handle;
	struct page *page;
	void *p;

	p = dma_alloc_coherent(dev, 5001, &handle, GFP_KERNEL);
	dma_free_coherent(dev, 5001, p, handle);
	p = dma_alloc_wc(dev, 5002, &handle, GFP_KERNEL);
	dma_free_wc(dev, 5002, p, handle);
	p = dma_alloc_attrs(dev, 5003, &handle, GFP_KERNEL, DMA_ATTR_NO_WARN);
	dma_free_attrs(dev, 5003, p, handle, DMA_ATTR_NO_WARN);
	page = dma_alloc_pages(dev, 4096, &handle, DMA_BIDIRECTIONAL, GFP_KERNEL);
	if (page)
		dma_free_pages(dev, 4096, page, handle, DMA_BIDIRECTIONAL);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
// TOTAL allocations=2 leaks=1
static noinline void noncontiguous(void)
{
	struct sg_table *t = dma_alloc_noncontiguous(dev, 8192, DMA_BIDIRECTIONAL, GFP_KERNEL, 0);

	if (t)
		dma_free_noncontiguous(dev, 8192, t, DMA_BIDIRECTIONAL);
	KEEP(dma_alloc_noncontiguous(dev, 12288, DMA_BIDIRECTIONAL, GFP_KERNEL, 0)); // LEAK 12288 dma
}
#else
static void noncontiguous(void) { }
#endif

// TOTAL allocations=5 leaks=2
static noinline void pools(void)
{
	struct dma_pool *pool;
	dma_addr_t a, b;
	void *p, *q;

	dma_pool_destroy(dma_pool_create("kedr-1", dev, 64, 16, 0));
	dma_pool_destroy(NULL);
	pool = dma_pool_create("kedr-2", dev, 64, 16, 0); // LEAK ? dma_pool
	if (!pool)
		return;
	p = dma_pool_alloc(pool, GFP_KERNEL, &a);
	q = dma_pool_zalloc(pool, GFP_KERNEL, &b);
	if (p)
		dma_pool_free(pool, p, a);
	if (q)
		dma_pool_free(pool, q, b);
	KEEP(dma_pool_alloc(pool, GFP_ATOMIC, &a)); // LEAK 64~ dma_pool_block
}

/* The device core gives these back, when the device goes. */
// TOTAL allocations=3
static noinline void managed(void)
{
	dma_addr_t handle;

	KEEP(dmam_alloc_coherent(dev, 5004, &handle, GFP_KERNEL));
	KEEP(dmam_alloc_attrs(dev, 5005, &handle, GFP_KERNEL, 0));
	KEEP(dmam_pool_create("kedr-3", dev, 64, 16, 0));
}

// RUN
static int __init dma_test_init(void)
{
	struct platform_device *pdev = platform_device_register_simple("kedr-dma", PLATFORM_DEVID_AUTO, NULL, 0);
	int err;

	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	dev = &pdev->dev;
	err = dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (!err) {
		leak_dma();
		free_dma();
		noncontiguous();
		pools();
		managed();
	}
	platform_device_unregister(pdev);
	return err;
}

static void __exit dma_test_exit(void)
{
}

module_init(dma_test_init);
module_exit(dma_test_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: dma");
