// SPDX-License-Identifier: GPL-2.0
/*
 * Frees what it once had and has freed, after somebody else who is not watched has
 * got it: that he did not give it to us to free, nobody can tell.
 */
#include "common.h"
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
		kmem_cache_free(kedr_helper_private, p); // WRONG-FREE slab
	else
		err = -EAGAIN;
	p = kmem_cache_alloc(kedr_helper_private, GFP_ATOMIC);
	kfree(p);
	if (kedr_helper_take_object(p))
		kfree(p); // WRONG-FREE slab
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
			__free_page(p); // WRONG-FREE page
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
		free_percpu(p); // WRONG-FREE percpu
	else
		err = -EAGAIN;
	preempt_enable();
}

// RUN
static int __init retaken_init(void)
{
	objects();
	pages();
	percpu();
	return err;
}

static void __exit retaken_exit(void)
{
}

module_init(retaken_init);
module_exit(retaken_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: frees of what has been handed out again");
