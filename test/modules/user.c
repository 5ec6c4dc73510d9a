// SPDX-License-Identifier: GPL-2.0
/*
 * The functions that copy from user space, of which the process that loads the
 * module has one: a page of it is borrowed.
 */
#include "common.h"
#include <linux/err.h>
#include <linux/mman.h>
#include <linux/uaccess.h>

static volatile size_t many = 10000, huge = 6 << 20;

static noinline void copies(void __user *text)
{
	KEEP(memdup_user(text, 9)); // LEAK 9 slab
	kfree(memdup_user(text, 9));
	KEEP(memdup_user(text, many)); // LEAK 10000 slab
	kfree(memdup_user(text, many));
	KEEP(memdup_user_nul(text, 10)); // LEAK 11 slab
	kfree(memdup_user_nul(text, 10));
	KEEP(strndup_user(text, 100)); // LEAK 17 slab
	kfree(strndup_user(text, 100));
	KEEP(vmemdup_user(text, 21)); // LEAK 21 vmalloc
	kvfree(vmemdup_user(text, 21));
	KEEP(vmemdup_user(text, huge)); // LEAK 6291456 vmalloc
	kvfree(vmemdup_user(text, huge));
}

/*
 * What can't be copied is not obtained. The first two have allocated by then, and
 * free again; that counts as an allocation, for it was seen as one.
 */
static noinline void failures(void)
{
	void __user *nowhere = (void __user *)8;

	KEEP(memdup_user(nowhere, 30));
	KEEP(memdup_user_nul(nowhere, 30));
	KEEP(strndup_user(nowhere, 30));
	KEEP(vmemdup_user(nowhere, 30));
}

// RUN
// TOTAL allocations=14 leaks=6 wrong-frees=0
static int __init user_init(void)
{
	static const char text[] = "sixteen letters!";
	unsigned long at;
	int err = 0;

	at = vm_mmap(NULL, 0, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (IS_ERR_VALUE(at))
		return at;
	if (copy_to_user((void __user *)at, text, sizeof(text)))
		err = -EFAULT;
	else
		copies((void __user *)at);
	failures();
	vm_munmap(at, 8 << 20);
	return err;
}

static void __exit user_exit(void)
{
}

module_init(user_init);
module_exit(user_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: copies from user space");
