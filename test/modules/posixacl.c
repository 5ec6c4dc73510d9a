// SPDX-License-Identifier: GPL-2.0
/* Access control lists, whose last reference is given back by RCU. */
#include "common.h"
#include <linux/err.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>

/* The head grew smaller in between. */
// TOTAL allocations=3 leaks=3
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
static noinline void leak_acls(void)
{
	KEEP(posix_acl_alloc(5, GFP_KERNEL)); // LEAK 64 slab
	KEEP(posix_acl_from_mode(0751, GFP_KERNEL)); // LEAK 48 slab
	KEEP(posix_acl_clone(kept, GFP_KERNEL)); // LEAK 48 slab
}
#else
static noinline void leak_acls(void)
{
	KEEP(posix_acl_alloc(5, GFP_KERNEL)); // LEAK 72/56 slab
	KEEP(posix_acl_from_mode(0751, GFP_KERNEL)); // LEAK 56/40 slab
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 19, 0)
	KEEP(posix_acl_clone(kept, GFP_KERNEL)); // LEAK 56/40 slab
#else
	KEEP(posix_acl_from_mode(0751, GFP_KERNEL)); // LEAK 56/40 slab
#endif
}
#endif

// TOTAL allocations=3
static noinline void release_acls(void)
{
	struct posix_acl *acl = posix_acl_from_mode(0640, GFP_KERNEL);

	if (!IS_ERR(acl)) {
		posix_acl_release(posix_acl_dup(acl));
		posix_acl_release(acl);
	}
	posix_acl_release(posix_acl_alloc(5, GFP_KERNEL));
	acl = posix_acl_alloc(4, GFP_KERNEL);
	kfree(acl);
}

/* These put a copy in place of the list, and give that back. */
// TOTAL allocations=4 leaks=1
static noinline void change_acls(void)
{
	struct posix_acl *acl = posix_acl_from_mode(0777, GFP_KERNEL);
	umode_t mode = 0640;

	if (IS_ERR(acl))
		return;
	if (__posix_acl_chmod(&acl, GFP_KERNEL, 0750))
		return;
	posix_acl_release(acl);

	acl = posix_acl_from_mode(0777, GFP_KERNEL);
	if (IS_ERR(acl))
		return;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	__posix_acl_create(&acl, GFP_KERNEL, &mode); // LEAK 48 slab
#else
	__posix_acl_create(&acl, GFP_KERNEL, &mode); // LEAK 56/40 slab
#endif
	KEEP(acl);
}

// RUN
static int __init posixacl_init(void)
{
	leak_acls();
	release_acls();
	change_acls();
	return 0;
}

static void __exit posixacl_exit(void)
{
	rcu_barrier();
}

module_init(posixacl_init);
module_exit(posixacl_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: access control lists");
