// SPDX-License-Identifier: GPL-2.0
/*
 * Frees twice. In between somebody else, who is not watched, has got the object: so
 * the kernel survives it. Of mappings, the kernel itself notices.
 */
#include "common.h"
#include <linux/io.h>
#include <linux/mempool.h>
#include <linux/percpu.h>

static int err;

// TOTAL allocations=2 wrong-frees=2
static noinline void objects(void)
{
	void *p;

	preempt_disable();
	p = kmem_cache_alloc(kedr_helper_private, GFP_ATOMIC);
	kmem_cache_free(kedr_helper_private, p);
	if (kedr_helper_take_object(p))
		kmem_cache_free(kedr_helper_private, p); // DOUBLE-FREE slab
	else
		err = -EAGAIN;
	p = kmem_cache_alloc(kedr_helper_private, GFP_ATOMIC);
	kfree(p);
	if (kedr_helper_take_object(p))
		kfree(p); // DOUBLE-FREE slab
	else
		err = -EAGAIN;
	preempt_enable();
}

// TOTAL allocations=1 wrong-frees=1
static noinline void pages(void)
{
	struct page *p;

	preempt_disable();
	p = alloc_page(GFP_ATOMIC);
	if (p) {
		__free_page(p);
		if (kedr_helper_take_page(p))
			__free_page(p); // DOUBLE-FREE page
		else
			err = -EAGAIN;
	}
	preempt_enable();
}

// TOTAL allocations=1 wrong-frees=1
static noinline void percpu(void)
{
	void __percpu *p;

	preempt_disable();
	p = __alloc_percpu_gfp(64, 64, GFP_NOWAIT);
	free_percpu(p);
	if (kedr_helper_take_percpu(p, 64))
		free_percpu(p); // DOUBLE-FREE percpu
	else
		err = -EAGAIN;
	preempt_enable();
}

// TOTAL allocations=3 wrong-frees=3
static noinline void mappings(void)
{
	struct page *page = kedr_helper_page();
	void __iomem *io;
	void *p;

	p = vmalloc(5000);
	vfree(p);
	vfree(p); // DOUBLE-FREE vmalloc
	if (!page)
		return;
	p = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	vunmap(p);
	vunmap(p); // DOUBLE-FREE vmap
	io = ioremap(0xfed10000, 100);
	iounmap(io);
	iounmap(io); // DOUBLE-FREE ioremap
}

static void *from_nowhere(gfp_t flags, void *data)
{
	unsigned long *left = data;

	return *left ? (void *)(0x1000 + --*left) : NULL;
}

static void to_nowhere(void *element, void *data)
{
}

// TOTAL allocations=2 wrong-frees=1
static noinline void elements(void)
{
	unsigned long left = 2;
	mempool_t *pool = mempool_create(1, from_nowhere, to_nowhere, &left);
	void *p;

	if (!pool)
		return;
	p = mempool_alloc(pool, GFP_KERNEL);
	mempool_free(p, pool);
	mempool_free(p, pool); // DOUBLE-FREE mempool_element
	mempool_destroy(pool);
}

// RUN
static int __init doublefree_init(void)
{
	objects();
	pages();
	percpu();
	mappings();
	elements();
	return err;
}

static void __exit doublefree_exit(void)
{
}

module_init(doublefree_init);
module_exit(doublefree_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: double frees");
