/* SPDX-License-Identifier: GPL-2.0 */
/* Call stacks: unwound, told by comparing, stored, and their tallies. */
#ifndef KEDR_STACK_H
#define KEDR_STACK_H

#include "context.h"

/*
 * Where among the frames of a stack the call is that returns to an address; MAX_ABOVE: not
 * found. A global function, for what it returns is just a number then to the verifier, and
 * not as many as there are rounds.
 */
__noinline int frame_at(__u32 room, __u64 ret)
{
	struct search l = {.address = ret, .found = room}; /* a key in memory: the programs' stack has few bytes */
	struct scratch *s = bpf_map_lookup_elem(&scratch, &l.found);
	__u32 i;

	if (!s)
		return MAX_ABOVE;
	if (layout.loops) {
		l.s = s;
		l.frames = s->full_frames;
		l.found = 0;
		bpf_loop(MAX_ABOVE, search_frame, &l, 0);
		return l.found ? l.found - 1 : MAX_ABOVE;
	}
	for (i = 0; i < MAX_ABOVE; i++)
		if (i >= s->full_frames || s->full[i] == ret)
			break;
	return i < s->full_frames ? i : MAX_ABOVE;
}

/*
 * Puts into the stack of a room what was unwound there, from the call site on: what lies
 * above it is the allocator and our own trampoline. A global function, as those below: the
 * verifier looks at it once, not once a way through the program.
 */
__noinline int cut_above(__u32 room, __u64 call_site)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	__u32 frames, at = frame_at(room, call_site);
	struct stack *st;

	if (!s)
		return 0;
	st = &s->stack;
	frames = s->full_frames;
	if (at < MAX_ABOVE) {
		bpf_probe_read_kernel(st->frame, sizeof(st->frame), &s->full[at]);
		st->frames = frames - at;
	} else if (layout.frame_pointers && frames) {
		/*
		 * Where a function begins, the frame is its caller's still: the return
		 * into that is the one which is missing, behind the function itself.
		 */
		bpf_probe_read_kernel(st->frame, sizeof(st->frame), s->full);
		st->frame[0] = call_site;
		st->frames = frames;
	} else {
		st->frame[0] = call_site;
		st->frames = 1;
		st->cut = 1;
		return 0;
	}
	st->cut = st->frames >= MAX_FRAMES || frames >= FULL_FRAMES;
	if (st->frames > MAX_FRAMES)
		st->frames = MAX_FRAMES;
	return 0;
}

/* Unwinds into s->full. */
static __always_inline void unwind_full(void *ctx, struct scratch *s)
{
	long n = bpf_get_stack(ctx, s->full, sizeof(s->full), 0);

	s->full_frames = n < 0 ? 0 : (__u64)n / 8;
}

/* Unwinds into s->full, and into s->stack from the call site on. */
static __always_inline void unwind(void *ctx, struct scratch *s, __u64 call_site)
{
	unwind_full(ctx, s);
	cut_above(s->room, call_site);
}

/*
 * Whether addr is in a function that allocates for its caller. The ranges are sorted,
 * and don't overlap. A global function: the verifier looks at it once, not once a way
 * through the search.
 */
__noinline int passes_through(__u64 addr)
{
	__u32 lo = 0, hi = spec.throughs;

	for (__u32 i = 0; i < 6; i++) {
		__u32 mid = (lo + hi) / 2;

		if (lo >= hi || mid >= MAX_THROUGH)
			break;
		if (addr - spec.through[mid].base < spec.through[mid].size)
			return true;
		if (addr < spec.through[mid].base)
			hi = mid;
		else
			lo = mid + 1;
	}
	return false;
}

/*
 * Who called a function that allocates for its caller and can't be probed
 * itself: unwound, because nothing tells where its return address lies.
 */
static __always_inline __u64 caller_beyond(void *ctx, struct scratch *s, __u64 call_site)
{
	struct stack *st = &s->stack;

	unwind(ctx, s, call_site);
	for (__u32 i = 1; i < 8; i++) {
		if (i >= st->frames)
			break;
		if (!passes_through(st->frame[i]))
			return st->frame[i];
	}
	return call_site;
}

/* All ones for a frame that a stack has, else 0. */
static __always_inline __u64 frame_mask(__u32 i, __u32 frames)
{
	__u64 below = (__u64)i - frames;

	barrier_var(below); /* the compiler would compare, which is to branch */
	return (__s64)below >> 63;
}

/* Two stacks that are compared, or one that is hashed. */
struct hashing {
	struct stack *a, *b;
	__u64 result;
};

static long compare_frame(__u32 i, struct hashing *h)
{
	if (i >= MAX_FRAMES || i >= h->a->frames)
		return 1;
	h->result |= h->a->frame[i] ^ h->b->frame[i];
	return 0;
}

static long hash_frame(__u32 i, struct hashing *h)
{
	if (i >= MAX_FRAMES || i >= h->a->frames)
		return 1;
	h->result = (h->result ^ h->a->frame[i]) * 0xff51afd7ed558ccdULL;
	h->result ^= h->result >> 32;
	return 0;
}

/* Whether the stack that lies in a room of the scratch map is the one with this id. */
__noinline int same_stack(__u32 room, __u64 id)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	struct hashing h = {.result = id}; /* the key, as above */
	struct stack *a, *b = bpf_map_lookup_elem(&stacks, &h.result);

	if (!s || !b)
		return 0;
	h.result = 0;
	a = &s->stack;
	if (a->frames != b->frames || a->load != b->load || a->role != b->role ||
	    a->site != b->site)
		return 0;
	h.a = a;
	h.b = b;
	if (layout.loops) {
		bpf_loop(MAX_FRAMES, compare_frame, &h, 0);
		return !h.result;
	}
	/* By eights, and without a branch for each, for those are what costs the verifier time. */
	for (__u32 i = 0; i < MAX_FRAMES; i += 8) {
		if (i >= a->frames)
			break;
#pragma unroll
		for (__u32 j = i; j < i + 8; j++)
			h.result |= (a->frame[j] ^ b->frame[j]) & frame_mask(j, a->frames);
	}
	return !h.result;
}

static __always_inline struct tally *tally_at(__u32 slot)
{
	return slot ? bpf_map_lookup_elem(&tallies, &slot) : NULL;
}

/* The stack of a slot; 0: none. */
static __always_inline __u64 slot_stack(__u32 slot)
{
	struct tally *tally = tally_at(slot);

	return tally ? tally->id : 0;
}

/* A slot that was had some time ago; 0: it is another stack's by now, for a clear came. */
static __always_inline __u32 still(__u32 slot, __u64 stack)
{
	return slot_stack(slot) == stack ? slot : 0;
}

static __always_inline __u32 new_slot(void)
{
	__u32 slot = 0;

	if (*(volatile __u32 *)&spares && !bpf_map_pop_elem(&spare_slots, &slot)) {
		__sync_fetch_and_add(&spares, -1);
		return slot;
	}
	if (!layout.max_slots)
		return 0;
	slot = __sync_fetch_and_add(&slots, 1);
	if (slot < layout.max_slots)
		return slot + 1;
	__sync_fetch_and_add(&slots, -1);
	return 0;
}

static __always_inline void spare(__u32 slot)
{
	if (slot && !bpf_map_push_elem(&spare_slots, &slot, 0))
		__sync_fetch_and_add(&spares, 1);
}

#define NO_SLOT (~0U)

/*
 * Finds the stack that lies in a room of the scratch map by an id, or stores it, and returns
 * its slot; NO_SLOT: there is no room; 0: the id is another stack's.
 */
__noinline __u32 store_as(__u32 room, __u64 id)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	struct stack *old = bpf_map_lookup_elem(&stacks, &id);
	struct tally *tally;
	__u32 slot;
	long err;

	if (!s)
		return NO_SLOT;
	if (!old) {
		slot = new_slot();
		tally = tally_at(slot);
		if (!tally)
			return NO_SLOT;
		tally->id = id;
		tally->live = tally->total = tally->total_bytes = 0;
		s->stack.slot = slot;
		s->stack.printed = 0;
		err = bpf_map_update_elem(&stacks, &id, &s->stack, BPF_NOEXIST);
		if (!err)
			return slot;
		spare(slot);
		if (err != EXIST_ERR)
			return NO_SLOT;
		old = bpf_map_lookup_elem(&stacks, &id);
	}
	return old && same_stack(room, id) ? old->slot : 0;
}

/*
 * Finds or stores the stack that lies in a room of the scratch map, and returns its
 * slot; 0: no room. Its id is a hash, but two stacks never share one: all frames are
 * compared.
 */
static __always_inline __u32 store_stack(__u32 room)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	struct hashing h = {};
	struct stack *st;
	__u32 slot = 0;
	__u64 id;

	if (!s)
		return 0;
	st = &s->stack;
	id = (((__u64)st->load << 3 | st->role) + 1) ^ st->site;
	if (layout.loops) {
		h.a = st;
		h.result = id;
		bpf_loop(MAX_FRAMES, hash_frame, &h, 0);
		id = h.result;
	} else {
		for (__u32 i = 0; i < MAX_FRAMES; i += 8) {
			if (i >= st->frames)
				break;
#pragma unroll
			for (__u32 j = i; j < i + 8; j++) {
				id = (id ^ (st->frame[j] & frame_mask(j, st->frames))) * 0xff51afd7ed558ccdULL;
				id ^= id >> 32;
			}
		}
	}
	/* Others that hash to the same are passed over. */
	for (__u32 try = 0; try < 3 && !slot; try++) {
		id += !id;
		slot = store_as(room, id++);
	}
	return slot == NO_SLOT ? 0 : slot;
}

/* A jump of the target, which has left no frame; 0: there was none. */
static __always_inline __u64 jumped(__u64 site, __u64 ret)
{
	return site == ret ? 0 : site;
}

/* Of a call whose stack is one of a load's. */
static __always_inline void begin_stack(struct scratch *s, __u32 load, __u32 role)
{
	s->stack.load = load;
	s->stack.role = role;
	s->stack.site = jumped(s->call.site, s->call.ret);
	s->stack.needed = role >= STACK_WRONG;
}

/*
 * The slot of the stack that was unwound in a room, of a call and for a load and a role; 0:
 * there is no room for it.
 */
__noinline __u32 settle_stack(__u32 room, __u32 load, __u32 role)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	__u32 slot;

	if (!s)
		return 0;
	begin_stack(s, load, role);
	cut_above(room, s->call.ret);
	slot = store_stack(room);
	/* Without the stack of a release nothing is wrong in the account. */
	if (!slot && s->stack.role != STACK_RELEASED)
		lose(LOST_STACKS_FULL);
	s->call.tag = known_tag(load, role, s->call.at);
	s->call.slot = slot;
	return slot;
}

/* Whether this call's stack may be told by comparing. A kprobe's ctx is no place on it. */
static __always_inline bool comparable(const struct caller *c)
{
	return knowing.on && !c->sp && !c->apart && !c->irq;
}

/* Unwinds the stack, and writes down what functions are told that go on with it. */
static __always_inline void unwind_call(void *ctx, struct scratch *s, struct caller *c)
{
	c->irq = in_irq();
	s->call.ret = c->ret;
	s->call.site = c->site;
	s->call.at = comparable(c) ? address_by_own(ctx) : 0;
	s->call.t = c->t;
	s->call.irq = c->irq;
	s->call.slot = 0;
	/* Of others nobody wants to know how they got there. */
	if (c->t >= 0)
		unwind_full(ctx, s);
}

/* Whether a stack that was told by comparing is the one that is unwound. */
static __always_inline void verify_stack(void *ctx, struct caller *c, __u32 load, __u32 role, __u32 slot)
{
	struct scratch *s = enter();

	if (!s)
		return;
	unwind_call(ctx, s, c);
	begin_stack(s, load, role);
	cut_above(s->room, c->ret);
	if (!same_stack(s->room, slot_stack(slot)))
		lose(LOST_MERGED);
	__sync_fetch_and_add(&verified, 1);
	leave();
}

/* The slot of this call's stack, if it is one that is known; else 0. */
static __always_inline __u32 stack_known(void *ctx, struct caller *c, __u32 load, __u32 role)
{
	struct scratch *s = NULL;
	__u32 slot = 0;
	__u64 at;

	if (!comparable(c))
		return 0;
	if (!layout.frame_type) {
		/* The stack is copied there. */
		s = enter();
		if (!s)
			return 0;
	}
	at = address_by_own(ctx);
	slot = known_stack(at, c->ret, known_tag(load, role, at), jumped(c->site, c->ret), s);
	if (s)
		leave();
	if (knowing.verify && slot)
		verify_stack(ctx, c, load, role, slot);
	return slot;
}

/* The slot of this call's stack by unwinding it; 0: there is no room for it. room: NULL, or the caller's. */
static __always_inline __u32 stack_unwound(void *ctx, struct scratch *room, struct caller *c, __u32 load, __u32 role)
{
	struct scratch *s = room ? room : enter();
	__u32 slot;

	if (!s)
		return 0;
	unwind_call(ctx, s, c);
	slot = settle_stack(s->room, load, role);
	if (knowing.on)
		learn_stack(s);
	if (!room)
		leave();
	return slot;
}

/* The slot of this call's stack; 0: there is no room for it. */
static __always_inline __u32 stack_slot(void *ctx, struct scratch *room, struct caller *c, __u32 load, __u32 role)
{
	__u32 slot = stack_known(ctx, c, load, role);

	return slot ? slot : stack_unwound(ctx, room, c, load, role);
}

#endif
