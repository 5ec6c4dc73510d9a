/* SPDX-License-Identifier: GPL-2.0 */
/* Who is calling: the interrupted task, interrupt context, the call stack. */
#ifndef KEDR_CONTEXT_H
#define KEDR_CONTEXT_H

#include "kedr.h"

#define barrier() asm volatile("" ::: "memory")

#define SOFTIRQ_OFFSET 0x00000100 /* serving one; include/linux/preempt.h */
#define HARDIRQ_NMI_MASK 0x00ff0000

static __always_inline bool in_irq(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	__u32 count = 0;

	if (cpu < MAX_CPUS && preempt_count[cpu])
		bpf_probe_read_kernel(&count, sizeof(count), (void *)preempt_count[cpu]);
	return count & (HARDIRQ_NMI_MASK | SOFTIRQ_OFFSET);
}

static __always_inline struct scratch *enter(void)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!s)
		return NULL;
	if (s->busy) {
		lose(LOST_NESTED);
		return NULL;
	}
	s->busy = 1;
	return s;
}

static __always_inline void leave(struct scratch *s)
{
	s->busy = 0;
}

/*
 * Unwinds into s->stack, from the call site on: what lies above it is the
 * allocator and our own trampoline. That part has the same depth almost every
 * time, so the depth that was right last time is tried first.
 */
static __always_inline void unwind(void *ctx, struct scratch *s, __u64 call_site)
{
	struct stack *st = &s->stack;
	long n;

	n = bpf_get_stack(ctx, st->frame, sizeof(st->frame), s->skip & BPF_F_SKIP_FIELD_MASK);
	if (n < 8 || st->frame[0] != call_site) {
		__u32 i, found = MAX_FRAMES;

		n = bpf_get_stack(ctx, st->frame, sizeof(st->frame), 0);
		for (i = 0; i < 24; i++) {
			if ((long)(i * 8) >= n)
				break;
			if (st->frame[i] == call_site) {
				found = i;
				break;
			}
		}
		if (found < MAX_FRAMES) {
			s->skip = found;
			n = bpf_get_stack(ctx, st->frame, sizeof(st->frame), found & BPF_F_SKIP_FIELD_MASK);
		}
		if (found == MAX_FRAMES || n < 8 || st->frame[0] != call_site) {
			st->frame[0] = call_site;
			st->frames = 1;
			st->cut = 1;
			return;
		}
	}
	st->frames = n / 8;
	st->cut = st->frames >= MAX_FRAMES;
}

static __always_inline bool passes_through(__u64 addr)
{
	for (__u32 i = 0; i < MAX_THROUGH; i++) {
		if (i >= spec.throughs)
			break;
		if (addr - spec.through[i].base < spec.through[i].size)
			return true;
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
	return 0;
}

static __always_inline bool same_stack(const struct stack *a, const struct stack *b)
{
	if (a->frames != b->frames || a->load != b->load || a->wrong != b->wrong)
		return false;
	for (__u32 i = 0; i < MAX_FRAMES; i++) {
		if (i >= a->frames)
			break;
		if (a->frame[i] != b->frame[i])
			return false;
	}
	return true;
}

/*
 * Finds or stores the stack of this call, and returns its id; 0: no room. The
 * id is a hash, but two stacks never share one: all frames are compared.
 */
static __always_inline __u64 stack_id(void *ctx, struct scratch *s, __u64 call_site, __u32 load,
				      bool wrong, struct stack **entry)
{
	struct stack *st = &s->stack, *old;
	__u64 id;

	unwind(ctx, s, call_site);
	st->load = load;
	st->wrong = wrong;
	id = ((__u64)load << 1 | wrong) + 1;
	for (__u32 i = 0; i < MAX_FRAMES; i++) {
		if (i >= st->frames)
			break;
		id = (id ^ st->frame[i]) * 0xff51afd7ed558ccdULL;
		id ^= id >> 32;
	}
	for (__u32 try = 0; try < 3; try++) {
		id += !id;
		old = bpf_map_lookup_elem(&stacks, &id);
		if (!old) {
			long err;

			st->live = st->live_bytes = st->total = st->total_bytes = st->printed = 0;
			err = bpf_map_update_elem(&stacks, &id, st, BPF_NOEXIST);
			if (err && err != EXIST_ERR)
				break;
			old = bpf_map_lookup_elem(&stacks, &id);
			if (!old)
				break;
		}
		if (same_stack(st, old)) {
			*entry = old;
			return id;
		}
		id++;
	}
	lose(LOST_STACKS_FULL);
	*entry = NULL;
	return 0;
}

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

static __always_inline __u64 frame_caller(void *ctx, const __u64 *w)
{
	__u64 ip = spec.function ? spec.function : bpf_get_func_ip(ctx);
	__u32 n = spec.args;

	if (n > MAX_ARGS)
		return 0;
	if (w[n + 2] - ip <= 16)
		return w[n + 3];
	if (w[n + 1] - ip <= 16)
		return w[n + 2];
	return 0;
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

static __always_inline long frame_read(void *ctx, __u64 *w)
{
	__u32 n = spec.args;

	if (n > MAX_ARGS)
		return -1;
	return bpf_probe_read_kernel(w, (n + 4) * 8, ctx);
}

/*
 * Whether this event is ours to handle. The kernel does not let a program
 * interrupt itself: an interrupt that frees, while the program looks at a free of
 * the code below, would go unseen. Hence two programs on each tracepoint: the
 * first handles the event and notes it as pending, the second takes the note away,
 * and steps in where there is none. Since they run one after the other, with
 * preemption off, an event passes unseen only if two nested interrupts find both at
 * work; misses less rescues is how many did.
 *
 * An interrupt leaves the notes as it found them, or with one too many on top, where
 * it found the second program at work: those are dropped with the note below them.
 */
static __always_inline bool mine(void *ctx, __u64 addr)
{
	__u32 id = spec.id, n;
	struct pending *p = bpf_map_lookup_elem(&pending, &id);

	if (!p)
		return true;
	n = p->n;
	if (!spec.twin) {
		if (n >= MAX_PENDING)
			n = 0;
		p->n = n + 1; /* first: an interrupt from here on writes above it */
		barrier();
		p->event[n].ctx = (__u64)ctx;
		p->event[n].addr = addr;
		return true;
	}
	for (__u32 i = 0; i < MAX_PENDING; i++) {
		__u32 at = n - 1 - i;

		if (at >= MAX_PENDING)
			break;
		if (p->event[at].ctx == (__u64)ctx && p->event[at].addr == addr) {
			p->n = at;
			return false;
		}
	}
	if (id < MAX_PROBES)
		__sync_fetch_and_add(&rescued[id], 1);
	return true;
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
	__u32 load, i, section = MAX_SECTIONS, id = spec.id;
	struct target *tg;
	struct load *ld;
	struct site *site;
	__u64 offset = 0, key, *word;

	if (t >= MAX_TARGETS || id >= MAX_PROBES)
		return LEADS_HERE;
	load = loaded[t].load - 1;
	i = t; /* its address is taken, and a variable in memory has no bounds */
	tg = bpf_map_lookup_elem(&targets, &i);
	ld = bpf_map_lookup_elem(&loads, &load);
	if (!tg || !ld)
		return LEADS_HERE;
	for (i = 0; i < MAX_SECTIONS; i++) {
		if (i >= tg->sections)
			break;
		/* The call lies before the address that it returns to. */
		if (ld->section[i] && addr - 1 - ld->section[i] < tg->section[i].size) {
			section = i;
			offset = addr - ld->section[i];
			break;
		}
	}
	if (section >= MAX_SECTIONS)
		return LEADS_HERE; /* not the file that we know: take what comes */
	key = (__u64)t << 56 | (__u64)section << 48 | offset;
	site = bpf_map_lookup_elem(&sites, &key);
	if (site)
		return site->probes[id / 64] >> (id % 64) & 1 ? LEADS_HERE : LEADS_ELSEWHERE;
	i = tg->section[section].elsewhere + offset / 64;
	word = bpf_map_lookup_elem(&elsewhere, &i);
	return word && *word >> (offset % 64) & 1 ? LEADS_ELSEWHERE : LEADS_ANYWHERE;
}

#endif
