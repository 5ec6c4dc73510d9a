/* SPDX-License-Identifier: GPL-2.0 */
/* The account: what was obtained, what was given back. */
#ifndef KEDR_ACCOUNT_H
#define KEDR_ACCOUNT_H

#include "clear.h"
#include "caller.h"

/* The address that an argument names. */
static __always_inline __u64 address_of(__u64 arg)
{
	return spec.pointer ? word_at(arg + spec.pointer_offset) : arg;
}

static __always_inline struct load *load_of(__u32 id)
{
	__u32 i = id - 1;

	return bpf_map_lookup_elem(&loads, &i);
}

static __always_inline __u32 load_now(int t)
{
	__u32 i = t;

	if (i >= MAX_TARGETS)
		return 0;
	barrier_var(i); /* the verifier may know another copy of it that is bounded */
	return loaded[i & (MAX_TARGETS - 1)].load;
}

static __always_inline void strike(struct object *old)
{
	struct load *ld = load_of(old->load);
	struct tally *tally = tally_at(old->slot);

	if (ld) {
		__sync_fetch_and_add(&ld->frees, 1);
		__sync_fetch_and_add(&ld->live, -1ULL);
		__sync_fetch_and_add(&ld->live_bytes, -old->size);
	}
	if (tally)
		__sync_fetch_and_add(&tally->live, -1ULL);
}

static __always_inline struct object *find(__u64 key)
{
	struct object *o = NULL;

	if (*filter_slot(key))
		o = layout.cells ? in_cell(key) : bpf_map_lookup_elem(&objects, &key);
	return o && !forgotten(key, o) ? o : NULL;
}

/*
 * Forgets an object. It is struck off before it is deleted, for the element may be
 * used again at once.
 */
static __always_inline void forget(__u64 key, struct object *old)
{
	if (layout.cells) {
		if (!take_cell(key, old))
			goto busy;
		strike(old);
		empty_cell(old);
	} else {
		strike(old);
		if (bpf_map_delete_elem(&objects, &key))
			goto busy;
	}
	__sync_fetch_and_add(filter_slot(key), -1);
	return;
busy:
	lose(LOST_OBJECTS_BUSY);
}

/* An address that may be obtained several times has as many keys. */
static __always_inline __u64 free_key(__u64 key)
{
	if (!spec.counted)
		return key;
	for (__u32 i = 0; i < MAX_COUNTED; i++) {
		if (!find(key + i))
			return key + i;
	}
	lose(LOST_COUNTED);
	return 0;
}

static __always_inline __u64 last_key(__u64 key)
{
	if (!spec.counted)
		return key;
	for (__u32 i = 0; i < MAX_COUNTED - 1; i++) {
		if (!find(key + 1))
			break;
		key++;
	}
	return key;
}

/* The load of the target that calls; NULL: it is not loaded, or can't be accounted for. */
static __always_inline struct load *load_calling(const struct caller *c, __u32 *id)
{
	struct load *ld;

	*id = load_now(c->t);
	if (!*id)
		return NULL;
	ld = load_of(*id);
	if (!ld)
		lose(LOST_LOADS_FULL);
	return ld;
}

/* Describes what a target obtained, but for its address; returns the tally of the stack. */
static __always_inline struct tally *describe(void *ctx, struct scratch *s, struct caller *c, struct object *o,
					      __u32 load, __u64 size, __u64 owner)
{
	c->irq = in_irq();
	o->size = size;
	o->call_site = c->site;
	o->time = bpf_ktime_get_boot_ns();
	o->owner = owner;
	o->load = load;
	o->pid = current_pid();
	o->kinds = spec.kinds;
	current_comm(o->comm);
	o->probe = spec.id;
	o->irq = c->irq;
	o->inner = spec.tracepoint;
	o->slot = c->unwound ? still(c->slot_then, c->stack) : stack_slot(ctx, s, c, load, STACK_OBTAINED);
	return tally_at(o->slot);
}

/* What the objects of one call have in common; s->object describes them. */
struct entry {
	struct scratch *s;
	struct tally *tally; /* NULL: there was no room for the stack */
	struct load *load;
};

/* Prepares to enter what a target obtained. */
static __always_inline bool prepare(void *ctx, struct scratch *s, struct caller *c, __u64 size, __u64 owner,
				    struct entry *e)
{
	__u32 id;

	e->s = s;
	e->load = load_calling(c, &id);
	if (!e->load)
		return false;
	e->tally = describe(ctx, s, c, &s->object, id, size, owner);
	return true;
}

static __always_inline void count_obtained(struct load *ld, __u64 size)
{
	__sync_fetch_and_add(&ld->allocations, 1);
	__sync_fetch_and_add(&ld->allocated_bytes, size);
}

static __always_inline void count_entered(struct load *ld, struct tally *tally, __u64 size)
{
	__sync_fetch_and_add(&ld->live, 1);
	__sync_fetch_and_add(&ld->live_bytes, size);
	if (tally) {
		__sync_fetch_and_add(&tally->live, 1);
		__sync_fetch_and_add(&tally->total, 1);
		__sync_fetch_and_add(&tally->total_bytes, size);
	}
}

/*
 * A cell to be written, and then shown; NULL: there is no room, and the object is lost.
 * Where the same address was not given back, as far as is known, it is the old one's.
 */
static __always_inline struct object *open_cell(__u64 key, struct object *old)
{
	struct cell *c;

	if (old && take_cell(key, old)) {
		strike(old);
		return old;
	}
	c = new_cell(key);
	if (!c) {
		lose(LOST_OBJECTS_FULL);
		return NULL;
	}
	__sync_fetch_and_add(filter_slot(key), 1);
	return &c->object;
}

static __always_inline void show_cell(__u64 key, struct object *o)
{
	barrier();
	*(volatile __u64 *)&cell_of(o)->key = key;
}

static __always_inline bool put_in_cell(__u64 key, const struct object *o, struct object *old)
{
	struct object *to = open_cell(key, old);

	if (!to)
		return false;
	*to = *o;
	show_cell(key, to);
	return true;
}

static __always_inline bool put_in_hash(__u64 key, const struct object *o, struct object *old)
{
	long err;

	if (old)
		strike(old);
	else
		__sync_fetch_and_add(filter_slot(key), 1);
	err = bpf_map_update_elem(&objects, &key, o, BPF_ANY);
	if (!err)
		return true;
	if (!old)
		__sync_fetch_and_add(filter_slot(key), -1);
	lose(err == BUSY_ERR ? LOST_OBJECTS_BUSY : LOST_OBJECTS_FULL);
	return false;
}

static __always_inline void enter_object(const struct entry *e, __u64 addr)
{
	__u64 key = free_key(key_of(addr));
	struct object *o = &e->s->object, *old;

	if (!key)
		return;
	old = find(key);
	o->address = shown(addr);
	count_obtained(e->load, o->size);
	if (layout.cells ? put_in_cell(key, o, old) : put_in_hash(key, o, old))
		count_entered(e->load, e->tally, o->size);
}

/*
 * The object at this key, if it is what this very call has obtained, seen already
 * inside of it, where it reached the allocator.
 */
static __always_inline struct object *seen_inside(struct object *old)
{
	return !spec.tracepoint && old && old->inner && old->pid == current_pid() ? old : NULL;
}

/* With another function of the target for its caller an object counts once. */
static __always_inline void count_once(const struct object *inside)
{
	struct load *ld = load_of(inside->load);

	if (ld) {
		__sync_fetch_and_add(&ld->frees, -1ULL);
		__sync_fetch_and_add(&ld->allocations, -1ULL);
		__sync_fetch_and_add(&ld->allocated_bytes, -inside->size);
	}
}

/* Enters an object that a target obtained. */
static __always_inline void remember(void *ctx, struct caller *c, __u64 addr, __u64 size, __u64 owner)
{
	__u64 key = free_key(key_of(addr));
	struct object *old, *inside, *o;
	struct tally *tally;
	struct load *ld;
	__u32 id;

	if (!key)
		return;
	old = find(key);
	inside = seen_inside(old);
	if (inside && inside->call_site == c->site) {
		inside->inner = 0;
		inside->probe = spec.id;
		inside->kinds = spec.kinds;
		return;
	}
	if (!layout.cells) {
		struct scratch *s = enter();
		struct entry e;

		if (!s)
			return;
		if (prepare(ctx, s, c, size, owner, &e)) {
			if (inside)
				count_once(inside);
			/* It is looked for anew: while the stack was unwound it may have gone. */
			enter_object(&e, addr);
		}
		leave();
		return;
	}
	ld = load_calling(c, &id);
	if (!ld)
		return;
	if (inside)
		count_once(inside);
	count_obtained(ld, size);
	o = open_cell(key, old);
	if (!o)
		return;
	o->address = shown(addr);
	tally = describe(ctx, NULL, c, o, id, size, owner);
	show_cell(key, o);
	count_entered(ld, tally, size);
}

static __always_inline void who_obtained(struct party *p, const struct object *o)
{
	p->stack = slot_stack(o->slot);
	p->call_site = o->call_site;
	p->pid = o->pid;
	p->irq = o->irq;
	__builtin_memcpy(p->comm, o->comm, sizeof(p->comm));
}

static __always_inline void who_calls(struct party *p, const struct scratch *s)
{
	p->call_site = s->call.site;
	p->pid = current_pid();
	p->irq = s->call.irq;
	current_comm(p->comm);
}

static __always_inline void who_acted(struct party *p, const struct act *a)
{
	p->stack = slot_stack(a->slot);
	p->call_site = a->call_site;
	p->pid = a->pid;
	p->irq = a->irq;
	__builtin_memcpy(p->comm, a->comm, sizeof(p->comm));
}

static __always_inline void need(__u64 stack)
{
	struct stack *st = bpf_map_lookup_elem(&stacks, &stack);

	if (st)
		st->needed = 1;
}

static __always_inline struct freed *freed_slot(__u64 key)
{
	struct freed_slots *all = VALUE_OF(freed);

	return &all->slot[hash_of(key) >> (64 - FREED_BITS)];
}

/* The memory is somebody else's now, who may give it to a target to free. */
static __always_inline void taken_by_others(__u64 addr)
{
	__u64 key = key_of(addr);
	struct freed *f = freed_slot(key);

	if (f->key == key)
		f->key = 0;
}

/* Notes who released an object, should it be released once more. */
static __always_inline void note_release(__u64 site, bool irq, __u64 key, const struct object *old, __u32 slot)
{
	struct freed *f = freed_slot(key);

	f->key = 0;
	barrier();
	/* Two may write at one time; an atomic addition that tells what was there is 5.12's. */
	f->turn = layout.cells ? __sync_fetch_and_add(&turns, 1) : bpf_ktime_get_boot_ns();
	f->size = old->size;
	f->load = old->load;
	f->probe = old->probe;
	f->obtained.call_site = old->call_site;
	f->obtained.slot = old->slot;
	f->obtained.pid = old->pid;
	f->obtained.irq = old->irq;
	__builtin_memcpy(f->obtained.comm, old->comm, sizeof(f->obtained.comm));
	f->released.call_site = site;
	f->released.slot = slot;
	f->released.pid = current_pid();
	f->released.irq = irq;
	current_comm(f->released.comm);
	f->end = f->turn;
	barrier();
	f->key = key;
}

/* What was released before it is released once more; NULL: nothing is known of it. */
static __always_inline struct freed *released_before(__u64 key)
{
	struct freed *f = freed_slot(key);

	return f->key == key && f->end == f->turn && !cleared(f->load) ? f : NULL;
}

/*
 * Enters a wrong release by a target. The first one with a stack is kept with what
 * is known of the object, further ones are counted.
 */
static __always_inline void wrong_release(struct scratch *s, const struct object *object, const struct freed *before,
					  __u8 what, __u32 id)
{
	__u64 times = s->call.times, stack = slot_stack(s->call.slot);
	struct wrong *w = &s->wrong, *old;
	struct load *ld = load_of(id);

	if (!ld)
		return;
	__sync_fetch_and_add(object ? &ld->mismatched : &ld->wrong_frees, times);
	if (!stack)
		return;
	old = bpf_map_lookup_elem(&wrongs, &stack);
	if (old) {
		__sync_fetch_and_add(&old->count, times);
		return;
	}
	w->what = what;
	w->address = shown(s->call.address);
	w->time = bpf_ktime_get_boot_ns();
	w->count = times;
	w->load = id;
	w->probe = spec.id;
	w->known = 0;
	w->size = 0;
	who_calls(&w->self, s);
	w->self.stack = stack;
	if (object) {
		w->known = 1;
		w->size = object->size;
		w->object_probe = object->probe;
		who_obtained(&w->obtained, object);
		need(w->obtained.stack);
	} else if (before) {
		w->known = 1;
		w->size = before->size;
		w->object_probe = before->probe;
		who_acted(&w->obtained, &before->obtained);
		who_acted(&w->released, &before->released);
		need(w->obtained.stack);
		need(w->released.stack);
	}
	if (bpf_map_update_elem(&wrongs, &stack, w, BPF_ANY))
		lose(LOST_WRONG_FULL);
}

#endif
