// SPDX-License-Identifier: GPL-2.0
/* What other modules borrow: it outlives them, and is never watched. */
#include "common.h"
#include <linux/percpu.h>

struct kmem_cache *kedr_helper_cache;
EXPORT_SYMBOL(kedr_helper_cache);

void *kedr_helper_kmalloc(size_t size)
{
	return kmalloc(size, GFP_KERNEL);
}
EXPORT_SYMBOL(kedr_helper_kmalloc);

void *kedr_helper_vmalloc(size_t size)
{
	return vmalloc(size);
}
EXPORT_SYMBOL(kedr_helper_vmalloc);

struct page *kedr_helper_page(void)
{
	return alloc_page(GFP_KERNEL);
}
EXPORT_SYMBOL(kedr_helper_page);

/* What comes from others is given back here. */
void kedr_helper_kfree(void *p)
{
	kfree(p);
}
EXPORT_SYMBOL(kedr_helper_kfree);

void kedr_helper_vfree(void *p)
{
	vfree(p);
}
EXPORT_SYMBOL(kedr_helper_vfree);

void kedr_helper_put_page(struct page *page)
{
	put_page(page);
}
EXPORT_SYMBOL(kedr_helper_put_page);

void kedr_helper_free_object(struct kmem_cache *c, void *p)
{
	kmem_cache_free(c, p);
}
EXPORT_SYMBOL(kedr_helper_free_object);

struct kmem_cache *kedr_helper_private;
EXPORT_SYMBOL(kedr_helper_private);

/* A cache to be ruined, a new one each time. */
struct kmem_cache *kedr_helper_victim(void)
{
	static atomic_t n;
	char name[32];

	snprintf(name, sizeof(name), "kedr_victim-%d", atomic_inc_return(&n));
	return kmem_cache_create_usercopy(name, 120, 0, 0, 0, 120, NULL);
}
EXPORT_SYMBOL(kedr_helper_victim);

/*
 * These obtain, with preemption disabled, what has just been freed: allocators hand
 * out first what came back last. A second free of it frees what is in use here.
 */
#define TRIES 64

bool kedr_helper_take_object(void *wanted)
{
	void *p[TRIES];
	int n = 0, i;
	bool ok;

	do
		p[n] = kmem_cache_alloc(kedr_helper_private, GFP_ATOMIC);
	while (p[n] && p[n] != wanted && ++n < TRIES);
	ok = n < TRIES && p[n];
	for (i = 0; i < n; i++)
		kmem_cache_free(kedr_helper_private, p[i]);
	return ok;
}
EXPORT_SYMBOL(kedr_helper_take_object);

bool kedr_helper_take_page(struct page *wanted)
{
	struct page *p[TRIES];
	int n = 0, i;
	bool ok;

	do
		p[n] = alloc_page(GFP_ATOMIC);
	while (p[n] && p[n] != wanted && ++n < TRIES);
	ok = n < TRIES && p[n];
	for (i = 0; i < n; i++)
		__free_page(p[i]);
	return ok;
}
EXPORT_SYMBOL(kedr_helper_take_page);

bool kedr_helper_take_percpu(void __percpu *wanted, size_t size)
{
	void __percpu *p[TRIES];
	int n = 0, i;
	bool ok;

	do
		p[n] = __alloc_percpu_gfp(size, size, GFP_NOWAIT);
	while (p[n] && p[n] != wanted && ++n < TRIES);
	ok = n < TRIES && p[n];
	for (i = 0; i < n; i++)
		free_percpu(p[i]);
	return ok;
}
EXPORT_SYMBOL(kedr_helper_take_percpu);

static int __init helper_init(void)
{
	kedr_helper_cache = kmem_cache_create("kedr_helper", 96, 0, 0, NULL);
	/* A cache that user space may be copied to is never merged with another. */
	kedr_helper_private = kmem_cache_create_usercopy("kedr_private", 112, 0, 0, 0, 112, NULL);
	return kedr_helper_cache && kedr_helper_private ? 0 : -ENOMEM;
}

/* Its users leak objects of the cache: it has to stay. */
module_init(helper_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("helper of kedr's test modules");
