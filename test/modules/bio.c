// SPDX-License-Identifier: GPL-2.0
/* Block requests: the last reference counts, whoever gives it back. */
#include "common.h"
#include <linux/bio.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
#define new_bio() bio_alloc(NULL, 1, REQ_OP_READ, GFP_KERNEL)
#define bio_of_set() bio_alloc_bioset(NULL, 2, REQ_OP_READ, GFP_KERNEL, &fs_bio_set)
#define clone(bio) bio_alloc_clone(NULL, bio, GFP_KERNEL, &fs_bio_set)
#else
#define new_bio() bio_alloc(GFP_KERNEL, 1)
#define bio_of_set() bio_alloc_bioset(GFP_KERNEL, 2, &fs_bio_set)
#define clone(bio) bio_clone_fast(bio, GFP_KERNEL, &fs_bio_set)
#endif

// TOTAL allocations=4 leaks=3
static noinline void leak_bios(void)
{
	struct bio *bio;

	KEEP(new_bio()); // LEAK ? bio
	KEEP(bio_of_set()); // LEAK ? bio
	bio = new_bio();
	if (!bio)
		return;
	KEEP(clone(bio)); // LEAK ? bio
	bio_put(bio);
}

// TOTAL allocations=4
static noinline void put_bios(void)
{
	struct bio *bio;

	bio_put(new_bio());
	bio_put(bio_of_set());
	bio = new_bio();
	if (!bio)
		return;
	bio_put(clone(bio));
	bio_put(bio);
}

// TOTAL allocations=2 leaks=1
static noinline void counted(void)
{
	struct bio *bio = new_bio(); // LEAK ? bio

	if (bio) {
		bio_get(bio);
		bio_put(bio);
	}
	bio = new_bio();
	if (bio) {
		bio_get(bio);
		bio_put(bio);
		bio_put(bio);
	}
}

static void end_io(struct bio *bio)
{
	bio_put(bio);
}

/* Given back in a callback, and by the kernel, which does it for a chained one. */
// TOTAL allocations=2
static noinline void ended(void)
{
	struct bio *parent = new_bio(), *child = new_bio();

	if (!parent || !child)
		return;
	parent->bi_end_io = end_io;
	bio_chain(child, parent);
	bio_endio(child);
	bio_endio(parent);
}

/* One that is not of a set: up to 5.17 bio_put() frees it, later kfree(). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
// TOTAL allocations=2 leaks=1
static noinline void of_no_set(void)
{
	KEEP(bio_kmalloc(3, GFP_KERNEL)); // LEAK * slab
	kfree(bio_kmalloc(3, GFP_KERNEL));
}
#else
// TOTAL allocations=2 leaks=1
static noinline void of_no_set(void)
{
	KEEP(bio_kmalloc(GFP_KERNEL, 3)); // LEAK ? bio
	bio_put(bio_kmalloc(GFP_KERNEL, 3));
}
#endif

// RUN
static int __init bio_test_init(void)
{
	leak_bios();
	put_bios();
	counted();
	ended();
	of_no_set();
	return 0;
}

static void __exit bio_test_exit(void)
{
}

module_init(bio_test_init);
module_exit(bio_test_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: bio");
