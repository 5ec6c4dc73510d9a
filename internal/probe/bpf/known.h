/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Call stacks that were seen before, told without being unwound. To unwind takes thousands
 * of instructions, and a module allocates by the same few ways again and again.
 *
 * A stack that was unwound is learned: where, from ctx on (which lies on the stack itself),
 * its return addresses are. The next time those words are compared, and nothing else.
 *
 * It has to be proof, for two stacks of one call site must never be taken for one. Where a
 * frame's return address lies follows from the frame inside of it: the unwinder
 * (arch/x86/kernel/unwind_orc.c, 5.17 to 7.3) adds a number to the stack pointer that
 * depends on the return address alone, or to what a register had that the frames inside have
 * saved. So, from ctx outwards, each frame is the one that was learned if
 *
 *  - the word at its place is the return address that was learned. Which of the words that
 *    have that value is the frame's is not known; all of them are compared, the true one too;
 *  - where the unwinder goes by a register (functions with alloca, trampolines): the word that
 *    has saved it points to where it pointed, from ctx on. What can be such a word, for it
 *    points just below or above a return address of the stack, is compared as well.
 *
 * What does not go by these rules is not learned, but unwound each time: interrupts, which
 * have a stack of their own, exceptions in the kernel, whose frame has the stack pointer in
 * it, and return addresses that a tracer has put its own in the place of.
 */
#ifndef KEDR_KNOWN_H
#define KEDR_KNOWN_H

#include "kedr.h"

#define KNOWN_BITS 9
#define KNOWN_WAYS 8
/* Below ctx, where it returns to, the program itself has saved a register. */
#define KNOWN_BELOW 256

/*
 * At the end of a stack lie the registers that the kernel was entered with, and the return
 * address of the outermost frame next to them: always in the same place. Pointers to there
 * are many, and tell nothing.
 */
#define KNOWN_TOP 256

struct known_bucket {
	__u64 failures; /* to learn: the more, the more seldom it is tried */
	struct known_way way[KNOWN_WAYS];
};

struct known_buckets {
	struct known_bucket bucket[1 << KNOWN_BITS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct known_buckets);
} known SEC(".maps");

struct known_spec {
	__u32 on; /* Requires Linux 5.17 (compare and exchange, bpf_loop) */
	__u32 verify; /* unwind all the same, and compare */
	struct range entry[2]; /* where interrupts and exceptions enter the kernel */
	__u64 tracer[4]; /* what takes the place of return addresses */
};

const volatile struct known_spec knowing = {};

__u64 own_address; /* of ranges; 0: not known yet */
__u64 verified; /* stacks that were told by comparing, and unwound as well */

/* A stack that is being learned, by looking at each of its words twice. */
struct learning {
	__u64 base, at, end;
	struct scratch *s;
	__u32 words; /* from base to the end */
	__u32 frames;
};

/*
 * A pointer as a number to reckon with, which the verifier allows of the distance between
 * two: that from a place of our own, which is always the same.
 */
static __always_inline __u64 scalar(void *p)
{
	__u64 n = (__u64)p;

	asm volatile("%0 -= %1" : "+r"(n) : "r"(ranges));
	return n;
}

/* A pointer as a number: the verifier keeps them apart. */
static __always_inline __u64 number(void *p)
{
	void *in = p;
	__u64 out = 0;

	bpf_probe_read_kernel(&out, sizeof(out), &in);
	return out;
}

static __always_inline __u64 address_by_own(void *p)
{
	if (!own_address)
		own_address = number(ranges);
	return own_address + scalar(p);
}

extern void *bpf_rdonly_cast(void *memory, __u32 type) __ksym;

/* A word of the kernel's memory, where that can be given a type. */
static __always_inline __u64 typed_word(__u64 address)
{
	return *(volatile __u64 *)bpf_rdonly_cast((void *)address, layout.frame_type);
}

static __always_inline struct known_bucket *known_bucket(__u64 ret, __u64 tag)
{
	__u64 n = ((ret ^ tag << 7) * 0x9e3779b97f4a7c15ULL) >> (64 - KNOWN_BITS);
	struct known_buckets *all = VALUE_OF(known);

	return &all->bucket[n];
}

/* Besides the call: whose and what for, and how deep the stack is. */
static __always_inline __u64 known_tag(__u32 load, __u32 role, __u64 at)
{
	__u64 depth = at & ((1ULL << layout.stack_shift) - 1);

	return (__u64)load << 32 | (__u64)(spec.id & 0xfff) << 20 | (__u64)role << 16 | depth >> 3;
}

/* A word of the stack that ctx, at this address, is on; copied, if s has a copy. */
static __always_inline __u64 known_word(const struct scratch *s, __u64 at, __u64 place)
{
	if (!s)
		return typed_word(at + place);
	barrier_var(place); /* the mask is for the verifier, and the compiler would take it away */
	return *(__u64 *)((char *)s->copy + (place & (KNOWN_COPY - 8)));
}

/* One that may be in the copy or not. */
static __always_inline __u64 known_at(const struct scratch *s, __u64 at, __u64 place, __u64 span)
{
	return !s || place < span ? known_word(s, at, place) : word_at(at + place);
}

/*
 * Whether the stack that ctx, at this address, is on is a way's: its slot, or 0. s: has a
 * copy of so many bytes of the stack; NULL: there is none.
 */
static __always_inline __u32 known_way(__u64 at, const struct known_way *k, __u64 state, const struct scratch *s,
				       __u64 span)
{
	__u32 slot, words = k->words, i = 0;

	/* There is one at least. */
#pragma clang loop unroll(disable)
	do {
#pragma unroll
		for (__u32 j = i; j < i + KNOWN_AT_ONCE; j++)
			if (known_word(s, at, k->word[j].at) != k->word[j].value)
				return 0;
		i += KNOWN_AT_ONCE;
	} while (i < words && i < KNOWN_WORDS);
#pragma clang loop unroll(disable)
	for (i = 0; i < KNOWN_POINTERS; i++) {
		if (i >= k->pointers)
			break;
		if (known_at(s, at, k->pointer[i].at, span) != at + k->pointer[i].value)
			return 0;
	}
	slot = k->slot;
	barrier();
	/* What has been written anew meanwhile is another one's. */
	return *(volatile __u64 *)&k->state == state ? slot : 0;
}

/*
 * Global functions, as those below: the verifier looks at their loops once. Where memory
 * can't be given a type, words are copied first, all at once.
 */
__noinline __u32 known_way_copied(__u64 at, struct known_way *k, __u64 state, __u32 room)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	__u64 span;

	if (!k || !s)
		return 0;
	span = k->span;
	/* Of another way it may be there already. */
	if (span > s->copied) {
		__u64 bytes = span;

		barrier_var(bytes);
		if (bytes > KNOWN_COPY || bpf_probe_read_kernel(s->copy, bytes, (void *)at))
			return 0;
		s->copied = span;
	}
	return known_way(at, k, state, s, span);
}

__noinline __u32 known_way_typed(__u64 at, struct known_way *k, __u64 state)
{
	return k ? known_way(at, k, state, NULL, 0) : 0;
}

/* The slot of the stack that ctx, at this address, is on, if it is this way's; else 0. */
static __always_inline __u32 known_here(__u64 at, __u64 ret, __u64 tag, __u64 site, __u32 room, struct known_way *k)
{
	__u64 state = *(volatile __u64 *)&k->state;

	if (!state || state & 1 || k->ret != ret || k->tag != tag || k->site != site)
		return 0;
	return layout.frame_type ? known_way_typed(at, k, state) : known_way_copied(at, k, state, room);
}

/* The same by a bucket's further ways. */
__noinline __u32 known_further(__u64 at, __u64 ret, __u64 tag, __u64 site, __u32 room)
{
	struct known_bucket *b = known_bucket(ret, tag);
	__u32 slot = 0;

	for (__u32 w = 1; w < KNOWN_WAYS && !slot && b->way[w].state; w++)
		slot = known_here(at, ret, tag, site, room, &b->way[w]);
	return slot;
}

/* The slot of the stack that ctx, at this address, is on; 0: it is not known. */
static __always_inline __u32 known_stack(__u64 at, __u64 ret, __u64 tag, __u64 site, struct scratch *s)
{
	struct known_bucket *b = known_bucket(ret, tag);
	__u32 room = s ? s->room : 0, slot;

	if (s)
		s->copied = 0;
	slot = known_here(at, ret, tag, site, room, &b->way[0]);
	return slot || !b->way[1].state ? slot : known_further(at, ret, tag, site, room);
}

/* A frame that is looked for among those that were unwound, from one of them on. */
struct search {
	struct scratch *s;
	__u64 address;
	__u32 from, frames;
	__u32 found; /* which one, and one; 0: none */
};

static long search_frame(__u32 i, struct search *l)
{
	i += l->from;
	if (i >= FULL_FRAMES || i >= l->frames)
		return 1;
	if (l->s->full[i] != l->address)
		return 0;
	l->found = i + 1;
	return 1;
}

/* Whether one of so many frames of the stack that is being learned returns to an address. */
__noinline int is_frame(struct scratch *s, __u64 address, __u32 frames)
{
	struct search l = {.s = s, .address = address, .from = 1, .frames = frames};

	if (!s)
		return 0;
	bpf_loop(FULL_FRAMES, search_frame, &l, 0);
	return l.found != 0;
}

/* The first time: the return addresses. */
static __always_inline long learn_return(struct learning *l, struct scratch *s, __u64 address, __u64 value)
{
	__u32 next = s->next, n;

	/* Kernel and modules are in the last 2 GB. */
	if (value < 0xffffffff80000000ULL)
		return 0;
	if (address >= l->at) {
		for (__u32 j = 0; j < 4; j++)
			if (knowing.tracer[j] && value == knowing.tracer[j])
				s->failed = 1;
	}
	/* Its own frame: below it the kernel's function that called it begins. */
	if (address < l->at && !s->low && s->full[1] == value)
		s->low = address - 8;
	if (next < FULL_FRAMES && next < l->frames && s->full[next] == value) {
		s->next = next + 1;
		/* An interrupt or an exception. The outermost frame is how the kernel was entered. */
		if (next + 1 < l->frames && (value - knowing.entry[0].base < knowing.entry[0].size ||
					     value - knowing.entry[1].base < knowing.entry[1].size))
			s->failed = 1;
	}
	/*
	 * Frames lie in their order, so that this one can't be there before all those inside
	 * of it could have been.
	 */
	if (address < l->at || !is_frame(s, value, s->next))
		return 0;
	n = s->learned.words;
	if (n >= KNOWN_WORDS) {
		s->failed = 1;
		return 1;
	}
	s->learned.word[n].value = value;
	s->learned.word[n].at = address - l->at;
	s->learned.words = n + 1;
	return s->failed ? 1 : 0;
}

/* The second time: what points to them. */
static __always_inline long learn_pointer(struct learning *l, struct scratch *s, __u64 address, __u64 value)
{
	__u32 n;

	if (address < s->low || value < l->at || value >= l->end - KNOWN_TOP)
		return 0;
	if (!is_frame(s, word_at(value + 8), l->frames) && !is_frame(s, word_at(value - 8), l->frames))
		return 0;
	n = s->learned.pointers;
	if (n >= KNOWN_POINTERS) {
		s->failed = 1;
		return 1;
	}
	s->learned.pointer[n].value = value - l->at;
	s->learned.pointer[n].at = address - l->at;
	s->learned.pointers = n + 1;
	return 0;
}

static long learn_word(__u32 i, struct learning *l)
{
	struct scratch *s = l->s;
	__u64 address;

	if (i < l->words) {
		address = l->base + 8ULL * i;
		return learn_return(l, s, address, word_at(address));
	}
	if (i == l->words && (s->failed || !s->low || s->next < l->frames)) {
		s->failed = 1;
		return 1;
	}
	address = l->base + 8ULL * (i - l->words);
	return learn_pointer(l, s, address, word_at(address));
}

/* Takes a place for what was learned, if it is free. Says whether it was. */
__noinline int keep_in(struct known_way *k, const struct known_way *learned)
{
	struct load *ld;
	__u64 state;
	__u32 load;

	if (!k || !learned)
		return 0;
	state = *(volatile __u64 *)&k->state;
	if (state & 1)
		return 0;
	if (state) {
		/* Of a module that has gone nobody asks any more. */
		load = (k->tag >> 32) - 1;
		ld = bpf_map_lookup_elem(&loads, &load);
		if (ld && ld->state != LOAD_GONE && ld->state != LOAD_NONE)
			return 0;
	}
	if (__sync_val_compare_and_swap(&k->state, state, state + 1) != state)
		return 0;
	bpf_probe_read_kernel(&k->ret, sizeof(*k) - offsetof(struct known_way, ret), &learned->ret);
	barrier();
	*(volatile __u64 *)&k->state = state + 2;
	return 1;
}

/* Learns the stack that was unwound, and which ctx, at this address, is on. */
__noinline int learn_unwound(struct scratch *s, __u64 at)
{
	struct learning l = {.at = at, .base = at - KNOWN_BELOW, .s = s};
	struct known_bucket *b;
	struct known_way *k;
	__u32 n;

	if (!s)
		return 0;
	k = &s->learned;
	l.frames = s->full_frames;
	l.end = (at | ((1ULL << layout.stack_shift) - 1)) + 1;
	l.words = (l.end - l.base) / 8;
	k->words = k->pointers = 0;
	s->low = s->failed = 0;
	s->next = 1;
	bpf_loop(2 * l.words, learn_word, &l, 0);
	n = k->words - 1;
	if (s->failed || n >= KNOWN_WORDS)
		return 0;
	k->span = k->word[n].at + 8;
	if (!layout.frame_type && k->span > KNOWN_COPY)
		return 0;
	/* They are compared several at once: what is missing for that is there twice. */
	for (__u32 i = 0; i < KNOWN_AT_ONCE - 1; i++) {
		if (++n >= KNOWN_WORDS)
			break;
		k->word[n] = k->word[0];
	}
	b = known_bucket(k->ret, k->tag);
	for (__u32 w = 0; w < KNOWN_WAYS; w++)
		if (keep_in(&b->way[w], k))
			return 1;
	return 0;
}

/* Learns the stack of the call that was looked at, if it has been unwound and stored, and whole. */
static __always_inline void learn_stack(struct scratch *s)
{
	struct known_bucket *b = known_bucket(s->call.ret, s->call.tag);

	if (!s->call.at || !s->call.slot || s->stack.cut)
		return;
	if (b->failures & (b->failures - 1)) {
		__sync_fetch_and_add(&b->failures, 1);
		return;
	}
	/* Of a stack that is cut here it can't be told where it ends. */
	if (s->full_frames < 2 || s->full_frames >= FULL_FRAMES)
		return;
	s->learned.ret = s->call.ret;
	s->learned.tag = s->call.tag;
	s->learned.site = s->stack.site;
	s->learned.slot = s->call.slot;
	if (!learn_unwound(s, s->call.at))
		__sync_fetch_and_add(&b->failures, 1);
}

#endif
