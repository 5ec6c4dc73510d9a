/* SPDX-License-Identifier: GPL-2.0 */
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/version.h>
#include <linux/vmalloc.h>

/* Leaked on purpose; kept, so that the compiler has no opinion on it. */
static void *volatile kept __maybe_unused;
#define KEEP(p) (kept = (void *)(unsigned long)(p))

/* From helper.ko, which no test watches. */
extern struct kmem_cache *kedr_helper_cache; /* objects of 96 bytes */
extern struct kmem_cache *kedr_helper_private; /* of 112, never merged with another cache */
struct kmem_cache *kedr_helper_victim(void); /* of 120 bytes, never to be used again */
void *kedr_helper_kmalloc(size_t size);
void *kedr_helper_vmalloc(size_t size);
struct page *kedr_helper_page(void);
void kedr_helper_kfree(void *p);
void kedr_helper_vfree(void *p);
void kedr_helper_put_page(struct page *page);
void kedr_helper_free_object(struct kmem_cache *c, void *p);
bool kedr_helper_take_object(void *wanted); /* of kedr_helper_private */
bool kedr_helper_take_page(struct page *wanted);
bool kedr_helper_take_percpu(void __percpu *wanted, size_t size);
