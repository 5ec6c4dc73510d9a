/* SPDX-License-Identifier: GPL-2.0 */
/* Who calls, by the trampoline's frame, and whether the call is ours to account for. */
#ifndef KEDR_CALLER_H
#define KEDR_CALLER_H

#include "stack.h"

/*
 * The words of a trampoline's frame, up to the caller's return address
 * (arch/x86/net/bpf_jit_comp.c, arch_prepare_bpf_trampoline, 5.10 to 6.12):
 *
 *	ctx -> arguments, [result, where the trampoline has exit programs],
 *	       saved rbp, return into the function, return into its caller
 *
 * The return into the function proves the position of the one after it: it lies
 * just behind the call at the function's entry. Nothing is assumed without it.
 */
#define MAX_ARGS 6
#define FRAME_WORDS (MAX_ARGS + 4)

/*
 * Which word the return into the caller is; 0: it can't be told. From 7.0 on a
 * trampoline with exit programs may be entered by a jump, which leaves no return
 * into the function (DYNAMIC_FTRACE_WITH_JMP): then it is the word in its place,
 * if the loader has seen that on a call whose caller it knows.
 */
static __always_inline __u32 caller_word(void *ctx, const __u64 *w)
{
	__u64 ip = spec.function ? spec.function : bpf_get_func_ip(ctx);
	__u32 n = spec.args;

	if (n > MAX_ARGS)
		return 0;
	if (w[n + 2] - ip <= 16)
		return n + 3;
	if (w[n + 1] - ip <= 16 || layout.jumps)
		return n + 2;
	return 0;
}

static __always_inline bool from_frame(void *ctx, const __u64 *w, struct caller *c)
{
	__u32 n = spec.args, at = caller_word(ctx, w);

	if (!at || n > MAX_ARGS) {
		lose(LOST_FRAME);
		return false;
	}
	c->slot = 8 * at;
	c->ret = at == n + 3 ? w[n + 3] : w[n + 2];
	return true;
}

/*
 * A tracepoint's argument. In assembler, for the compiler would fold the cases
 * into one load at a variable offset, which the verifier refuses.
 */
#define TP_ARG(n)                                                                           \
	case n:                                                                             \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(v) : "r"(ctx), "i"(8 * n)); \
		return v

static __always_inline __u64 tp_arg(struct bpf_raw_tracepoint_args *ctx, __u8 i)
{
	__u64 v;

	switch (i) {
		TP_ARG(0);
		TP_ARG(1);
		TP_ARG(2);
		TP_ARG(3);
	}
	return 0;
}

/*
 * Reads the words from one of them on. Where memory can be given a type (Linux 6.2), that
 * of some structure with a number in each word, it is a few loads; else a copy.
 */
static __always_inline long frame_read_from(void *ctx, __u64 *w, __u32 from)
{
	__u32 n = spec.args;

	if (n > MAX_ARGS)
		return -1;
	if (layout.frame_type) {
		volatile __u64 *frame = bpf_rdonly_cast(ctx, layout.frame_type);

#pragma unroll
		for (__u32 i = 0; i < FRAME_WORDS; i++)
			if (i >= from && i < n + 4)
				w[i] = frame[i];
		return 0;
	}
	return bpf_probe_read_kernel(w + from, (n + 4 - from) * 8, ctx + 8 * from);
}

static __always_inline long frame_read(void *ctx, __u64 *w)
{
	return frame_read_from(ctx, w, 0);
}

/* Counts what the second program handles in place of the first; says whether this one does. */
static __always_inline bool step_in(bool yes)
{
	__u32 id = spec.id;

	if (spec.twin == (yes ? 2 : 1) && id < MAX_PROBES)
		__sync_fetch_and_add(&rescued[id], yes ? 1 : -1);
	return yes;
}

static __always_inline struct event *event_ways(__u64 place)
{
	return &events[EVENT_WAYS * ((place * 0x9e3779b97f4a7c15ULL) >> (64 - EVENT_BITS))];
}

/* What mine says, where notes of several places meet: a global function, seldom called. */
__noinline int mine_among(__u64 place, __u64 addr)
{
	struct event *e = event_ways(place);
	/* The arguments are aligned, to four bytes at least. */
	__u64 own = place | spec.twin, others = own ^ 3;

#pragma unroll
	for (__u32 w = 0; w < EVENT_WAYS; w++) {
		__u64 key = e[w].key;

		if ((key ^ place) > 3)
			continue;
		e[w].key = 0;
		if (w)
			__sync_fetch_and_add(&crowded, -1);
		if (key == others && e[w].addr == addr)
			return step_in(false);
	}
#pragma unroll
	for (__u32 w = 0; w < EVENT_WAYS; w++) {
		if (!e[w].key && !__sync_val_compare_and_swap(&e[w].key, 0, own)) {
			e[w].addr = addr;
			if (w)
				__sync_fetch_and_add(&crowded, 1);
			return step_in(true);
		}
	}
	/* No room for a note: it is left to the other program, or lost, and counted. */
	return step_in(false);
}

/*
 * Whether this event is ours to handle. The kernel does not let a program
 * interrupt itself: an interrupt that frees, while the program looks at a free of
 * the code below, would go unseen. Hence two programs: that which comes first handles the
 * event and leaves a note, the other one takes the note away, or steps in where there is
 * none. So an event passes unseen only if two nested interrupts find both at work; the
 * misses of the one, less what the other has rescued, is how many did.
 *
 * Which comes first is not ours to say: on tracepoints the one that was attached first, in
 * trampolines the other one.
 *
 * A note is found by where the event's arguments are: that is on the stack of a task or an
 * interrupt, which has one event at a time. Not by the CPU, for since 7.0 a task may be
 * preempted between the two programs, and go on elsewhere (include/linux/tracepoint.h,
 * __DO_TRACE_CALL). One that has been left over, because the other program was at work, is
 * taken away at the next event in the same place.
 */
static __always_inline bool mine(void *ctx, __u64 addr)
{
	__u64 place = scalar(ctx) ^ (__u64)spec.id << 48, own = place | spec.twin, key;
	struct event *e = event_ways(place);
	__u32 id = spec.id;

	if (!spec.twin || id >= MAX_PROBES)
		return true;
	if (!paired[id]) {
		/* The second is attached a little later, before there is anything to account for. */
		if (spec.twin == 1)
			return true;
		paired[id] = 1;
		return false;
	}
	/*
	 * A place has one event at a time, so that nobody else makes notes of it now: where none is
	 * further back, none of this one is.
	 */
	if (!*(volatile __u64 *)&crowded) {
		barrier_var(e); /* the compiler would reckon it out time and again */
		key = *(volatile __u64 *)&e->key;
		if (!key) {
			if (!__sync_val_compare_and_swap(&e->key, 0, own)) {
				e->addr = addr;
				return step_in(true);
			}
		} else if (key == (own ^ 3) && e->addr == addr) {
			e->key = 0;
			return step_in(false);
		}
	}
	return mine_among(place, addr);
}

enum leads { LEADS_HERE, LEADS_ELSEWHERE, LEADS_ANYWHERE };

/*
 * Where the call that returns to addr leads, by the target's own code: here, to
 * what this probe stands for; elsewhere, to some other function which got here by
 * itself, its frame given up by a tail call; anywhere, for an indirect call. A
 * global function: the verifier looks at it once.
 */
__noinline int call_leads(__u32 t, __u64 addr)
{
	__u32 load, i, id = spec.id;
	__u64 section, offset, key, *word;
	struct target *tg;
	struct load *ld;
	struct site *site;

	if (t >= MAX_TARGETS || id >= MAX_PROBES)
		return LEADS_HERE;
	load = loaded[t].load - 1;
	section = section_of(load, addr);
	if (section >= MAX_SECTIONS)
		return LEADS_HERE; /* not the file that we know: take what comes */
	i = t; /* its address is taken, and a variable in memory has no bounds */
	tg = bpf_map_lookup_elem(&targets, &i);
	ld = bpf_map_lookup_elem(&loads, &load);
	if (!tg || !ld)
		return LEADS_HERE;
	barrier_var(section); /* its bounds are to be where it is used */
	section %= MAX_SECTIONS;
	offset = addr - ld->section[section];
	key = (__u64)t << 56 | (__u64)section << 48 | offset;
	site = bpf_map_lookup_elem(&sites, &key);
	if (site)
		return site->probes[id / 64] >> (id % 64) & 1 ? LEADS_HERE : LEADS_ELSEWHERE;
	i = tg->section[section].elsewhere + offset / 64;
	word = bpf_map_lookup_elem(&elsewhere, &i);
	return word && *word >> (offset % 64) & 1 ? LEADS_ELSEWHERE : LEADS_ANYWHERE;
}

/*
 * The same, by what was found before: neither the code of a load nor the plan changes, and
 * no load has the number of another.
 */
static __always_inline int leads(__u32 t, __u64 addr)
{
	__u64 *slot, what, was;
	int found;

	/* There a slot is written in two halves. */
	if (t >= MAX_TARGETS || layout.word == 4)
		return call_leads(t, addr);
	barrier_var(t); /* the verifier may know another copy of it that is bounded */
	t &= MAX_TARGETS - 1;
	/* All text of modules lies within 4 GB. */
	what = addr << 32 | (__u64)(loaded[t].load & 0xffff) << 16 | (spec.id & 0xff) << 2;
	slot = &led[(what * 0x9e3779b97f4a7c15ULL) >> (64 - LED_BITS)];
	was = *(volatile __u64 *)slot;
	if ((was ^ what) <= 3)
		return was & 3;
	found = call_leads(t, addr);
	*(volatile __u64 *)slot = what | found;
	return found;
}

/*
 * Finds the jump of a target that led here. A trampoline knows where its return
 * address lies, which is proof; a tracepoint knows only what it is, and that it
 * lies above on the same stack. The stack may begin anywhere in its 16 KB.
 */
__noinline int claim(__u64 here, __u64 slot, __u64 ret)
{
	for (__u32 half = 0; half < 2; half++) {
		__u64 key = (here >> layout.stack_shift) + half;
		struct notes *ns = bpf_map_lookup_elem(&notes, &key);

		if (!ns)
			continue;
		for (__u32 i = 0; i < MAX_NOTES; i++) {
			__u32 at = ns->n - 1 - i;
			struct note *note;

			if (at >= MAX_NOTES)
				break;
			note = &ns->at[at];
			if (note->ret != ret || (slot ? note->sp != slot : note->sp <= here))
				continue;
			/* Those above it have returned. */
			__sync_fetch_and_add(&noted, (__u64)at - ns->n);
			ns->n = at;
			return at + 1 + half * MAX_NOTES;
		}
	}
	return 0;
}

/* Says who called, and whether that was a call to what is probed. */
static __always_inline void attribute(void *ctx, struct caller *c)
{
	c->site = c->ret;
	c->t = target_of(c->ret);
	if (spec.tails && noted) {
		__u64 here = c->sp ? c->sp - 1 : number(ctx), key;
		int n = claim(here, c->sp ? c->sp : c->slot ? here + c->slot : 0, c->ret) - 1;
		struct notes *ns;

		key = (here >> layout.stack_shift) + (n >= MAX_NOTES);
		if (n < 0 || !(ns = bpf_map_lookup_elem(&notes, &key)))
			return;
		c->site = ns->at[n % MAX_NOTES].site;
		c->t = ns->at[n % MAX_NOTES].target;
	}
}

/* The same for an allocation, whose caller may be beyond functions in between. */
static __always_inline bool attribute_beyond(void *ctx, struct caller *c)
{
	attribute(ctx, c);
	if (c->t < 0 && spec.throughs && c->ret - spec.through[0].base < spec.through_span && passes_through(c->ret)) {
		struct scratch *s = enter();

		if (!s)
			return false;
		c->ret = caller_beyond(ctx, s, c->ret);
		c->slot = 0;
		c->sp = 0;
		leave();
		attribute(ctx, c);
	}
	return c->t >= 0 && leads(c->t, c->site) != LEADS_ELSEWHERE;
}

#endif
