// SPDX-License-Identifier: GPL-2.0
/* Pools, and what comes from them. */
#include "common.h"
#include <linux/mempool.h>

// TOTAL allocations=4 leaks=4
static noinline void leak_pools(void)
{
	KEEP(mempool_create_slab_pool(2, kedr_helper_cache)); // LEAK ? mempool
	KEEP(mempool_create_kmalloc_pool(2, 100)); // LEAK ? mempool
	KEEP(mempool_create_page_pool(2, 0)); // LEAK ? mempool
	KEEP(mempool_create_node(1, mempool_kmalloc, mempool_kfree, (void *)50UL, GFP_KERNEL, 0)); // LEAK ? mempool
}

// TOTAL allocations=4
static noinline void destroy_pools(void)
{
	mempool_destroy(mempool_create_slab_pool(2, kedr_helper_cache));
	mempool_destroy(mempool_create_kmalloc_pool(2, 100));
	mempool_destroy(mempool_create_page_pool(2, 0));
	mempool_destroy(mempool_create_node(1, mempool_kmalloc, mempool_kfree, (void *)50UL, GFP_KERNEL, 0));
	mempool_destroy(NULL);
}

static noinline void use(mempool_t *pool)
{
	void *p;

	if (!pool)
		return;
	KEEP(mempool_alloc(pool, GFP_KERNEL)); // LEAK ? mempool_element x3
	p = mempool_alloc(pool, GFP_KERNEL);
	mempool_free(p, pool);
	local_bh_disable();
	p = mempool_alloc(pool, GFP_ATOMIC);
	mempool_free(p, pool);
	local_bh_enable();
	mempool_free(NULL, pool);
	mempool_destroy(pool);
}

// TOTAL allocations=12 leaks=3
static noinline void use_pools(void)
{
	use(mempool_create_slab_pool(1, kedr_helper_cache));
	use(mempool_create_kmalloc_pool(1, 100));
	use(mempool_create_page_pool(1, 1));
}

/* With nothing left to allocate from, the reserve is handed out, and taken back. */
static void *from_nowhere(gfp_t flags, void *data)
{
	unsigned long *left = data;

	return *left ? (void *)(0x1000 + --*left) : NULL;
}

static void to_nowhere(void *element, void *data)
{
}

// TOTAL allocations=4 leaks=1
static noinline void use_reserve(void)
{
	unsigned long left = 2;
	mempool_t *pool = mempool_create(2, from_nowhere, to_nowhere, &left);
	void *p;

	if (!pool)
		return;
	p = mempool_alloc(pool, GFP_NOWAIT);
	mempool_free(p, pool);
	KEEP(mempool_alloc(pool, GFP_NOWAIT)); // LEAK ? mempool_element
	p = mempool_alloc(pool, GFP_NOWAIT);
	KEEP(mempool_alloc(pool, GFP_NOWAIT)); /* fails */
	mempool_free(p, pool);
	mempool_destroy(pool);
}

// RUN
static int __init mempool_test_init(void)
{
	leak_pools();
	destroy_pools();
	use_pools();
	use_reserve();
	return 0;
}

static void __exit mempool_test_exit(void)
{
}

module_init(mempool_test_init);
module_exit(mempool_test_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: mempool");
