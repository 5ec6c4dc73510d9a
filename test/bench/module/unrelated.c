// SPDX-License-Identifier: GPL-2.0
/* A module that obtains objects of none of the kinds that are measured. */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/percpu.h>

static long __percpu *counters;

static int __init unrelated_init(void)
{
	counters = alloc_percpu(long);
	return counters ? 0 : -ENOMEM;
}

static void __exit unrelated_exit(void)
{
	free_percpu(counters);
}

module_init(unrelated_init);
module_exit(unrelated_exit);
MODULE_DESCRIPTION("obtains nothing of what is measured");
MODULE_LICENSE("GPL");
