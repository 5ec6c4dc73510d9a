// SPDX-License-Identifier: GPL-2.0
/* Every function of the vmalloc family, once leaked and once freed. */
#include "common.h"

struct with_rcu {
	struct rcu_head rcu;
	char payload[100];
};

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
// TOTAL allocations=5 leaks=3
static noinline void newer(void)
{
	KEEP(vmalloc_huge(5000001, GFP_KERNEL)); // LEAK 5000001 vmalloc
	KEEP(vmalloc_array(7, 153)); // LEAK 1071 vmalloc
	KEEP(vcalloc(7, 154)); // LEAK 1078 vmalloc
	vfree(vmalloc_huge(5000001, GFP_KERNEL));
	vfree(vmalloc_array(7, 153));
}
#else
static void newer(void) { }
#endif

// TOTAL allocations=8 leaks=8
static noinline void leak_vmalloc(void)
{
	KEEP(vmalloc(1001)); // LEAK 1001 vmalloc
	KEEP(vzalloc(1002)); // LEAK 1002 vmalloc
	KEEP(vmalloc_user(1003)); // LEAK 1003 vmalloc
	KEEP(vmalloc_node(1004, 0)); // LEAK 1004 vmalloc
	KEEP(vzalloc_node(1005, 0)); // LEAK 1005 vmalloc
	KEEP(vmalloc_32(1006)); // LEAK 1006 vmalloc
	KEEP(vmalloc_32_user(1007)); // LEAK 1007 vmalloc
	KEEP(__vmalloc(1008, GFP_KERNEL)); // LEAK 1008 vmalloc
}

// TOTAL allocations=8
static noinline void free_vmalloc(void)
{
	vfree(vmalloc(1001));
	vfree(vzalloc(1002));
	vfree(vmalloc_user(1003));
	vfree(vmalloc_node(1004, 0));
	vfree(vzalloc_node(1005, 0));
	vfree(vmalloc_32(1006));
	vfree(vmalloc_32_user(1007));
	vfree(__vmalloc(1008, GFP_KERNEL));
	vfree(NULL);
}

// TOTAL allocations=6 leaks=6
static noinline void leak_kvmalloc(void)
{
	KEEP(kvmalloc(109, GFP_KERNEL)); // LEAK 109 vmalloc
	KEEP(kvmalloc(8 << 20, GFP_KERNEL)); // LEAK 8388608 vmalloc
	KEEP(kvzalloc(111, GFP_KERNEL)); // LEAK 111 vmalloc
	KEEP(kvmalloc_array(7, 16, GFP_KERNEL)); // LEAK 112 vmalloc
	KEEP(kvcalloc(7, 17, GFP_KERNEL)); // LEAK 119 vmalloc
	KEEP(kvmalloc_node(120, GFP_KERNEL, 0)); // LEAK 120 vmalloc
}

// TOTAL allocations=6
static noinline void free_kvmalloc(void)
{
	struct with_rcu *r;

	kvfree(kvmalloc(109, GFP_KERNEL));
	kvfree(kvmalloc(8 << 20, GFP_KERNEL));
	kfree(kvmalloc(113, GFP_KERNEL)); /* a small one is a kmalloc */
	kvfree_sensitive(kvmalloc(114, GFP_KERNEL), 114);
	r = kvmalloc(sizeof(*r), GFP_KERNEL);
	kvfree_rcu(r, rcu);
	r = vmalloc(sizeof(*r));
	kvfree_rcu(r, rcu);
	kvfree(NULL);
}

/* Freed by RCU without a place in the object, after a wait if need be. */
#ifdef kvfree_rcu_mightsleep
#define kvfree_rcu_wait(p) kvfree_rcu_mightsleep(p)
#else
#define kvfree_rcu_wait(p) kvfree_rcu(p)
#endif

// TOTAL allocations=2
static noinline void free_without_head(void)
{
	void *p = kvmalloc(115, GFP_KERNEL), *q = vmalloc(116);

	kvfree_rcu_wait(p);
	kvfree_rcu_wait(q);
}

// RUN
static int __init vmalloc_init_module(void)
{
	newer();
	leak_vmalloc();
	free_vmalloc();
	leak_kvmalloc();
	free_kvmalloc();
	free_without_head();
	return 0;
}

static void __exit vmalloc_exit_module(void)
{
	rcu_barrier();
}

module_init(vmalloc_init_module);
module_exit(vmalloc_exit_module);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: vmalloc");
