/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where objects are kept: the kernel's hash takes some 800 instructions to enter one and take
 * it out again, an array of our own a tenth of that.
 *
 * An object is in the first free cell from its home on, which is what its key hashes to, and
 * home says how far from there one has ever been put: so much is looked at to find one, and
 * a cell that has become empty needs no mark. Objects don't move.
 *
 * What happens at one time happens to different objects: an address is handed out before it
 * can be given back, and is given back before it is handed out again. So cells are taken by
 * an atomic exchange, and what is in them is not locked. User space, in probe/cell.go, knows
 * this layout as well. Requires Linux 5.17 (compare and exchange, bpf_loop).
 */
#ifndef KEDR_CELL_H
#define KEDR_CELL_H

#include "kedr.h"

#define CELL_TAKEN 1 /* a key that no object has: what is in the cell is being written, or struck off */
#define CELL_REACH 511 /* how far from home an object may be, a power of two less one */

struct cell {
	__u64 key; /* 0: empty */
	__u32 reach; /* of the objects whose home this is, no farther from it; a power of two less one */
	__u32 pad;
	struct object object;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cell);
} cells SEC(".maps");

static __always_inline struct cell *cell_at(__u32 i)
{
	return bpf_map_lookup_elem(&cells, &i);
}

static __always_inline __u32 home_of(__u64 key)
{
	return (hash_of(key) >> 32) * layout.cells >> 32;
}

static __always_inline __u32 cell_behind(__u32 home, __u32 n)
{
	__u32 i = home + n;

	return i < layout.cells ? i : i - layout.cells;
}

struct seeking {
	__u64 key;
	__u32 home;
	__u32 found; /* so far from home; 0: not found */
};

static long seek_cell(__u32 i, struct seeking *s)
{
	struct cell *c = cell_at(cell_behind(s->home, i + 1));

	if (c && c->key == s->key)
		s->found = i + 1;
	return s->found != 0;
}

/* How far from home an object is; 0: it is nowhere else. A global function, seldom called. */
__noinline int seek_beyond(__u64 key, __u32 reach)
{
	struct seeking s = {.key = key, .home = home_of(key)};

	bpf_loop(reach & CELL_REACH, seek_cell, &s, 0);
	return s.found;
}

static __always_inline struct object *in_cell(__u64 key)
{
	__u32 home = home_of(key), n;
	struct cell *c = cell_at(home);

	if (!c)
		return NULL;
	if (c->key == key)
		return &c->object;
	if (!c->reach)
		return NULL;
	n = seek_beyond(key, c->reach);
	if (!n)
		return NULL;
	c = cell_at(cell_behind(home, n));
	return c ? &c->object : NULL;
}

static long claim_cell(__u32 i, struct seeking *s)
{
	struct cell *c = cell_at(cell_behind(s->home, i + 1));

	if (c && !c->key && !__sync_val_compare_and_swap(&c->key, 0, CELL_TAKEN))
		s->found = i + 1;
	return s->found != 0;
}

/* Takes a cell that is not the object's home; says how far from there, 0: none was free. */
__noinline int claim_beyond(__u64 key)
{
	struct seeking s = {.key = key, .home = home_of(key)};
	struct cell *home = cell_at(s.home);
	__u32 reach = 1;

	if (!home)
		return 0;
	bpf_loop(CELL_REACH, claim_cell, &s, 0);
	/* Where it may be is known before it is there; it never gets less. */
	for (__u32 i = 0; i < 9; i++)
		if (reach < s.found)
			reach = 2 * reach + 1;
	if (s.found)
		__sync_fetch_and_or(&home->reach, reach);
	return s.found;
}

/* A cell for an object, to be written and then given the key; NULL: there is no room. */
static __always_inline struct cell *new_cell(__u64 key)
{
	__u32 home = home_of(key), n;
	struct cell *c;

	if (__sync_fetch_and_add(&held, 1) >= layout.max_objects)
		goto none;
	c = cell_at(home);
	if (c && !c->key && !__sync_val_compare_and_swap(&c->key, 0, CELL_TAKEN))
		return c;
	n = claim_beyond(key);
	if (n)
		return cell_at(cell_behind(home, n));
none:
	__sync_fetch_and_add(&held, -1);
	return NULL;
}

static __always_inline struct cell *cell_of(const struct object *o)
{
	return (struct cell *)((char *)o - offsetof(struct cell, object));
}

/* Takes an object out of its cell; false: somebody else has, at this very moment. */
static __always_inline bool take_cell(__u64 key, struct object *o)
{
	return __sync_val_compare_and_swap(&cell_of(o)->key, key, CELL_TAKEN) == key;
}

static __always_inline bool empty_cell(struct object *o)
{
	barrier();
	*(volatile __u64 *)&cell_of(o)->key = 0;
	__sync_fetch_and_add(&held, -1);
	return true;
}

#endif
