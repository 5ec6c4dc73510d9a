/* SPDX-License-Identifier: GPL-2.0 */
/* Who is calling: the interrupted task, interrupt context, the call stack. */
#ifndef KEDR_CONTEXT_H
#define KEDR_CONTEXT_H

#include "kedr.h"

#define barrier() asm volatile("" ::: "memory")

/*
 * In its place the loader puts the kernel's per-CPU variable that has the preemption
 * counter, by its type: then it is read by one instruction, where a helper takes a hundred.
 */
#define PERCPU_VARIABLE "0x6b65647270657263"

/* This CPU's preemption counter; 0: unknown. */
static __always_inline __u32 preemption(void)
{
	__u32 cpu, count = 0;

	if (layout.percpu_count != (__u32)-1) {
		void *variable;

		asm volatile("%0 = " PERCPU_VARIABLE " ll" : "=r"(variable));
		variable = bpf_this_cpu_ptr(variable);
		return *(volatile __u32 *)(variable + layout.percpu_count);
	}
	cpu = bpf_get_smp_processor_id();
	if (cpu < MAX_CPUS && preempt_count[cpu])
		bpf_probe_read_kernel(&count, sizeof(count), (void *)preempt_count[cpu]);
	return count;
}

static __always_inline bool in_irq(void)
{
	return preemption() & layout.irq_mask;
}

const volatile __u32 depths = 1; /* how many rooms there are */

/*
 * A call: where it returns to, and the address behind the instruction that made
 * it. These are two only where the target has jumped to the function.
 */
struct caller {
	__u64 ret, site;
	__u32 slot; /* where the return address lies, from ctx on; 0: unknown */
	int t; /* the target; -1: none */
	__u64 sp; /* the same, for a kprobe: its address; 0: unknown */
	__u64 stack; /* of a call that was unwound when it began */
	bool unwound;
};

static __always_inline struct scratch *enter(void)
{
	__u32 zero = 0, depth;
	struct scratch *first = bpf_map_lookup_elem(&scratch, &zero), *s;

	if (!first)
		return NULL;
	depth = first->depth;
	if (depth >= depths) {
		lose(LOST_NESTED);
		return NULL;
	}
	s = first;
	if (depth)
		s = bpf_map_lookup_elem(&scratch, &depth);
	if (s) {
		s->room = depth;
		first->depth = depth + 1;
	}
	return s;
}

static __always_inline void leave(void)
{
	__u32 zero = 0;
	struct scratch *first = bpf_map_lookup_elem(&scratch, &zero);

	if (first && first->depth)
		first->depth--;
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
		if (found == MAX_FRAMES && layout.frame_pointers && n >= 8) {
			/*
			 * Where a function begins, the frame is its caller's still: the return
			 * into that is the one which is missing, behind the function itself.
			 */
			st->frame[0] = call_site;
			st->frames = n / 8;
			st->cut = st->frames >= MAX_FRAMES;
			return;
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

static __always_inline bool same_stack(const struct stack *a, const struct stack *b)
{
	if (a->frames != b->frames || a->load != b->load || a->role != b->role ||
	    a->site != b->site)
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
 * Finds or stores the stack that lies in a room of the scratch map, and returns its
 * id; 0: no room. The id is a hash, but two stacks never share one: all frames are
 * compared. A global function: the verifier looks at its loops once.
 */
__noinline __u64 store_stack(__u32 room)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	struct stack *st, *old;
	__u64 id;

	if (!s)
		return 0;
	st = &s->stack;
	id = (((__u64)st->load << 3 | st->role) + 1) ^ st->site;
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
		if (same_stack(st, old))
			return id;
		id++;
	}
	return 0;
}

/* The id of this call's stack; 0: there is no room for it. */
static __always_inline __u64 stack_id(void *ctx, struct scratch *s, const struct caller *c,
				      __u32 load, __u32 role)
{
	struct stack *st = &s->stack;
	__u64 id;

	unwind(ctx, s, c->ret);
	st->load = load;
	st->role = role;
	st->site = c->site == c->ret ? 0 : c->site;
	st->needed = role >= STACK_WRONG;
	id = store_stack(s->room);
	/* Without the stack of a release nothing is wrong in the account. */
	if (!id && role != STACK_RELEASED)
		lose(LOST_STACKS_FULL);
	return id;
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
 * it found the second program at work: those are dropped with the note below them or, if
 * that has been taken away, by the next event outside of interrupts.
 */
static __always_inline bool mine(void *ctx, __u64 addr)
{
	__u32 id = spec.id, n;
	struct pending *p = bpf_map_lookup_elem(&pending, &id);

	if (!p)
		return true;
	n = p->n;
	if (!spec.twin) {
		/* Outside of interrupts nothing else is under way: what is there was left over. */
		if (n && !in_irq())
			n = 0;
		barrier_var(n); /* the check is not to be joined with the one before */
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

/* A pointer as a number: the verifier keeps them apart. */
static __always_inline __u64 number(void *p)
{
	void *in = p;
	__u64 out = 0;

	bpf_probe_read_kernel(&out, sizeof(out), &in);
	return out;
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
	if (c->t < 0 && passes_through(c->ret)) {
		struct scratch *s = enter();

		if (!s)
			return false;
		c->ret = caller_beyond(ctx, s, c->ret);
		c->slot = 0;
		c->sp = 0;
		leave();
		attribute(ctx, c);
	}
	return c->t >= 0 && call_leads(c->t, c->site) != LEADS_ELSEWHERE;
}

#endif
