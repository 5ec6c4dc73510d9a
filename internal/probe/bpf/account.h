/* SPDX-License-Identifier: GPL-2.0 */
/* The account: what was obtained, what was given back. */
#ifndef KEDR_ACCOUNT_H
#define KEDR_ACCOUNT_H

#include "context.h"

static __always_inline struct load *load_of(__u32 id)
{
	__u32 i = id - 1;

	return bpf_map_lookup_elem(&loads, &i);
}

static __always_inline void strike(struct object *old)
{
	struct load *ld = load_of(old->load);
	struct stack *st = bpf_map_lookup_elem(&stacks, &old->stack);

	if (ld) {
		__sync_fetch_and_add(&ld->frees, 1);
		__sync_fetch_and_add(&ld->live, -1ULL);
	}
	if (st) {
		__sync_fetch_and_add(&st->live, -1ULL);
		__sync_fetch_and_add(&st->live_bytes, -old->size);
	}
}

/*
 * Forgets the object with this key; false if there was none. The object is
 * struck off before it is deleted, for the element may be used again at once.
 */
static __always_inline bool forget(__u64 key)
{
	__u32 *f = filter_slot(key);
	struct object *old;

	if (!*f)
		return false;
	old = bpf_map_lookup_elem(&objects, &key);
	if (!old)
		return false;
	strike(old);
	if (bpf_map_delete_elem(&objects, &key)) {
		lose(LOST_OBJECTS_BUSY);
		return true;
	}
	__sync_fetch_and_add(f, -1);
	return true;
}

static __always_inline bool known(__u64 key)
{
	return *filter_slot(key) && bpf_map_lookup_elem(&objects, &key);
}

/* Enters an object that target t obtained. */
static __always_inline void remember(void *ctx, struct scratch *s, int t, __u64 call_site,
				     __u64 key, __u64 size)
{
	__u32 *f = filter_slot(key);
	struct object *o = &s->object, *old = NULL;
	struct stack *st;
	struct load *ld;
	__u32 pid = bpf_get_current_pid_tgid();
	__u32 id = t < MAX_TARGETS && t >= 0 ? loaded[t].load : 0;
	bool same;
	long err;

	if (!id)
		return;
	if (*f)
		old = bpf_map_lookup_elem(&objects, &key);
	same = old && old->inner && old->pid == pid && !spec.tracepoint;
	if (same && old->call_site == call_site) {
		/* The same call, seen already where it reached the allocator. */
		old->inner = 0;
		old->probe = spec.id;
		return;
	}
	ld = load_of(id);
	if (!ld) {
		lose(LOST_LOADS_FULL);
		return;
	}
	if (old)
		strike(old);
	else
		__sync_fetch_and_add(f, 1);
	if (same) {
		/* Likewise, with another function of the target for its caller. */
		__sync_fetch_and_add(&ld->frees, -1ULL);
		__sync_fetch_and_add(&ld->allocations, -1ULL);
		__sync_fetch_and_add(&ld->allocated_bytes, -old->size);
	}

	o->size = size;
	o->call_site = call_site;
	o->time = bpf_ktime_get_boot_ns();
	o->load = id;
	o->pid = pid;
	o->probe = spec.id;
	o->irq = in_irq();
	o->inner = spec.tracepoint;
	bpf_get_current_comm(o->comm, sizeof(o->comm));
	o->stack = stack_id(ctx, s, call_site, id, false, &st);
	__sync_fetch_and_add(&ld->allocations, 1);
	__sync_fetch_and_add(&ld->allocated_bytes, size);
	err = bpf_map_update_elem(&objects, &key, o, BPF_ANY);
	if (err) {
		if (!old)
			__sync_fetch_and_add(f, -1);
		lose(err == BUSY_ERR ? LOST_OBJECTS_BUSY : LOST_OBJECTS_FULL);
		return;
	}
	__sync_fetch_and_add(&ld->live, 1);
	if (st) {
		__sync_fetch_and_add(&st->live, 1);
		__sync_fetch_and_add(&st->live_bytes, size);
		__sync_fetch_and_add(&st->total, 1);
		__sync_fetch_and_add(&st->total_bytes, size);
	}
}

/* Enters a release by target t of what no target had obtained. */
static __always_inline void wrong_free(void *ctx, int t, __u64 call_site, __u64 addr)
{
	__u32 id = t < MAX_TARGETS && t >= 0 ? loaded[t].load : 0;
	__u32 pid = bpf_get_current_pid_tgid();
	struct scratch *s;
	struct wrong *w, *old;
	struct load *ld;
	struct stack *st;
	__u64 stack;
	long err;

	ld = load_of(id);
	if (!id || !ld || call_leads(t, call_site) != LEADS_HERE)
		return;
	s = enter();
	if (!s)
		return;
	stack = stack_id(ctx, s, call_site, id, true, &st);
	if (!stack) {
		__sync_fetch_and_add(&ld->wrong_frees, 1);
		goto out;
	}
	old = bpf_map_lookup_elem(&wrongs, &stack);
	__sync_fetch_and_add(&ld->wrong_frees, 1);
	if (old) {
		__sync_fetch_and_add(&old->count, 1);
		old->address = addr;
		old->pid = pid;
		goto out;
	}
	w = &s->wrong;
	w->address = addr;
	w->time = bpf_ktime_get_boot_ns();
	w->count = 1;
	w->load = id;
	w->pid = pid;
	w->probe = spec.id;
	w->irq = in_irq();
	bpf_get_current_comm(w->comm, sizeof(w->comm));
	err = bpf_map_update_elem(&wrongs, &stack, w, BPF_ANY);
	if (err)
		lose(LOST_WRONG_FULL);
out:
	leave(s);
}

#endif
