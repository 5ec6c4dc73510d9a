// SPDX-License-Identifier: GPL-2.0
/* One of two that call each other, and release what the other has obtained. */
#include "common.h"
#include "westeast.h"

static void *kept_for_east;

void *kedr_west_obtain(size_t size)
{
	void *p = kmalloc(size, GFP_KERNEL); // LEAK 802 slab stack=kedr_west_obtain

	KEEP(p);
	return p;
}
EXPORT_SYMBOL(kedr_west_obtain);

/* By a jump: the allocator returns to east. */
void *kedr_west_jump(size_t size)
{
	return vmalloc(size); // LEAK 804 vmalloc stack=kedr_west_jump
}
EXPORT_SYMBOL(kedr_west_jump);

void kedr_west_release(void *p)
{
	kfree(p);
}
EXPORT_SYMBOL(kedr_west_release);

void kedr_west_ask(kedr_obtain_t *obtain, kedr_release_t *release)
{
	void *p = obtain(805);

	KEEP(p);
	kfree(p);
	release(kmalloc(806, GFP_KERNEL));
	kept_for_east = obtain(807);
}
EXPORT_SYMBOL(kedr_west_ask);

/* With east beside it: 801 to 804, and 806 and 808. */
// TOTAL allocations=6 leaks=2 wrong-frees=0
static int __init west_init(void)
{
	return 0;
}

static void __exit west_exit(void)
{
	void *p = kmalloc(808, GFP_KERNEL);

	kfree(kept_for_east);
	kfree(p);
}

module_init(west_init);
module_exit(west_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: calls east, and is called");
