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
	if (layout.cells && !take_cell(key, old)) {
		lose(LOST_OBJECTS_BUSY);
		return;
	}
	strike(old);
	if (layout.cells) {
		empty_cell(old);
	} else if (bpf_map_delete_elem(&objects, &key)) {
		lose(LOST_OBJECTS_BUSY);
		return;
	}
	__sync_fetch_and_add(filter_slot(key), -1);
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

/* What the objects of one call have in common. */
struct entry {
	struct scratch *s;
	struct tally *tally; /* NULL: there was no room for the stack */
	struct load *load;
};

/* Prepares to enter what a target obtained; s->object is what they have in common. */
static __always_inline bool prepare(void *ctx, struct scratch *s, const struct caller *c, __u64 size,
				    __u64 owner, struct entry *e)
{
	struct object *o = &s->object;
	__u32 id = load_now(c->t);

	if (!id)
		return false;
	e->s = s;
	e->load = load_of(id);
	if (!e->load) {
		lose(LOST_LOADS_FULL);
		return false;
	}
	o->size = size;
	o->call_site = c->site;
	o->time = bpf_ktime_get_boot_ns();
	o->owner = owner;
	o->load = id;
	o->pid = bpf_get_current_pid_tgid();
	o->kinds = spec.kinds;
	o->probe = spec.id;
	o->irq = in_irq();
	o->inner = spec.tracepoint;
	current_comm(o->comm);
	o->slot = c->unwound ? still(c->slot_then, c->stack) : stack_slot(ctx, s, c, id, STACK_OBTAINED);
	e->tally = tally_at(o->slot);
	return true;
}

/*
 * The object at this key, if it is what this very call has obtained, seen already
 * inside of it, where it reached the allocator.
 */
static __always_inline struct object *seen_inside(__u64 key)
{
	struct object *old = spec.tracepoint ? NULL : find(key);

	return old && old->inner && old->pid == (__u32)bpf_get_current_pid_tgid() ? old : NULL;
}

/* Where the same address was not given back, as far as is known, it takes the old one's place. */
static __always_inline long put_in_cell(__u64 key, const struct object *o, struct object *old)
{
	struct cell *c;

	if (old) {
		*old = *o;
		return 0;
	}
	c = new_cell(key);
	if (!c)
		return FULL_ERR;
	c->object = *o;
	barrier();
	*(volatile __u64 *)&c->key = key;
	return 0;
}

static __always_inline void enter_object(const struct entry *e, __u64 addr)
{
	struct object *o = &e->s->object, *old;
	struct load *ld = e->load;
	__u64 key = free_key(key_of(addr));
	__u32 *f;
	long err;

	if (!key)
		return;
	f = filter_slot(key);
	old = find(key);
	if (old)
		strike(old);
	else
		__sync_fetch_and_add(f, 1);
	o->address = shown(addr);
	__sync_fetch_and_add(&ld->allocations, 1);
	__sync_fetch_and_add(&ld->allocated_bytes, o->size);
	err = layout.cells ? put_in_cell(key, o, old) : bpf_map_update_elem(&objects, &key, o, BPF_ANY);
	if (err) {
		if (!old)
			__sync_fetch_and_add(f, -1);
		lose(err == BUSY_ERR ? LOST_OBJECTS_BUSY : LOST_OBJECTS_FULL);
		return;
	}
	__sync_fetch_and_add(&ld->live, 1);
	__sync_fetch_and_add(&ld->live_bytes, o->size);
	if (e->tally) {
		__sync_fetch_and_add(&e->tally->live, 1);
		__sync_fetch_and_add(&e->tally->total, 1);
		__sync_fetch_and_add(&e->tally->total_bytes, o->size);
	}
}

/* Enters an object that a target obtained. */
static __always_inline void remember(void *ctx, struct scratch *s, const struct caller *c, __u64 addr,
				     __u64 size, __u64 owner)
{
	struct object *old = seen_inside(key_of(addr));
	struct entry e;

	if (old && old->call_site == c->site) {
		old->inner = 0;
		old->probe = spec.id;
		old->kinds = spec.kinds;
		return;
	}
	if (!prepare(ctx, s, c, size, owner, &e))
		return;
	if (old) {
		/* With another function of the target for its caller: it counts once. */
		struct load *ld = load_of(old->load);

		if (ld) {
			__sync_fetch_and_add(&ld->frees, -1ULL);
			__sync_fetch_and_add(&ld->allocations, -1ULL);
			__sync_fetch_and_add(&ld->allocated_bytes, -old->size);
		}
	}
	enter_object(&e, addr);
}

static __always_inline void who_obtained(struct party *p, const struct object *o)
{
	p->stack = slot_stack(o->slot);
	p->call_site = o->call_site;
	p->pid = o->pid;
	p->irq = o->irq;
	__builtin_memcpy(p->comm, o->comm, sizeof(p->comm));
}

static __always_inline void who_am_i(struct party *p, __u64 call_site)
{
	p->call_site = call_site;
	p->pid = bpf_get_current_pid_tgid();
	p->irq = in_irq();
	current_comm(p->comm);
}

static __always_inline void need(__u64 stack)
{
	struct stack *st = bpf_map_lookup_elem(&stacks, &stack);

	if (st)
		st->needed = 1;
}

static __always_inline struct freed *freed_slot(__u64 key)
{
	__u32 i = ((key >> 3) * 0x9e3779b97f4a7c15ULL) >> (64 - FREED_BITS);

	return bpf_map_lookup_elem(&freed, &i);
}

/* The memory is somebody else's now, who may give it to a target to free. */
static __always_inline void taken_by_others(__u64 addr)
{
	__u64 key = key_of(addr);
	struct freed *f = freed_slot(key);

	if (f && f->key == key)
		f->key = 0;
}

/* Notes who released an object, should it be released once more. */
static __always_inline void note_release(const struct caller *c, __u64 key, const struct object *old,
					 __u64 stack)
{
	struct freed *f = freed_slot(key);

	if (!f)
		return;
	f->key = 0;
	barrier();
	/* Two may write at one time; an atomic addition that tells what was there is 5.12's. */
	f->turn = layout.cells ? __sync_fetch_and_add(&turns, 1) : bpf_ktime_get_boot_ns();
	f->size = old->size;
	f->load = old->load;
	f->probe = old->probe;
	who_obtained(&f->obtained, old);
	who_am_i(&f->released, c->site);
	f->released.stack = stack;
	f->end = f->turn;
	barrier();
	f->key = key;
}

/* What was released before it is released once more; NULL: nothing is known of it. */
static __always_inline struct freed *released_before(__u64 key)
{
	struct freed *f = freed_slot(key);

	return f && f->key == key && f->end == f->turn && !cleared(f->load) ? f : NULL;
}

/*
 * Enters a wrong release by a target. The first one with a stack is kept with what
 * is known of the object, further ones are counted.
 */
static __always_inline void wrong_release(struct scratch *s, const struct caller *c, __u64 addr,
					  const struct object *object, struct freed *before, __u8 what,
					  __u64 times, __u32 id, __u64 stack)
{
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
	w->address = shown(addr);
	w->time = bpf_ktime_get_boot_ns();
	w->count = times;
	w->load = id;
	w->probe = spec.id;
	w->known = 0;
	w->size = 0;
	who_am_i(&w->self, c->site);
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
		w->obtained = before->obtained;
		w->released = before->released;
		need(w->obtained.stack);
		need(w->released.stack);
	}
	if (bpf_map_update_elem(&wrongs, &stack, w, BPF_ANY))
		lose(LOST_WRONG_FULL);
}

#endif
