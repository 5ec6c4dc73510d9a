/* SPDX-License-Identifier: GPL-2.0 */
/* Who is calling: the interrupted task, interrupt context, the call stack. */
#ifndef KEDR_CONTEXT_H
#define KEDR_CONTEXT_H

#include "known.h"

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

/* The task's name. By a typed pointer, which 5.11 has, it is two loads; else a copy. */
static __always_inline void current_comm(char *comm)
{
	if (layout.task_comm) {
		volatile __u64 *name = (void *)bpf_get_current_task_btf() + layout.task_comm;

		((__u64 *)comm)[0] = name[0];
		((__u64 *)comm)[1] = name[1];
	} else {
		bpf_get_current_comm(comm, COMM_LEN);
	}
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
	__u32 slot_then; /* of that */
	bool unwound;
	bool apart; /* ctx came by way of memory: nothing can be reckoned with it */
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
 * Where among the frames of a stack the call is that returns to an address; MAX_ABOVE: not
 * found. A global function, for what it returns is just a number then to the verifier, and
 * not as many as there are rounds.
 */
__noinline int frame_at(__u32 room, __u64 ret)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	__u32 i;

	if (!s)
		return MAX_ABOVE;
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
	struct stack *a, *b = bpf_map_lookup_elem(&stacks, &id);
	struct hashing h = {};

	if (!s || !b)
		return 0;
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

/*
 * Finds or stores the stack that lies in a room of the scratch map, and returns its
 * slot; 0: no room. Its id is a hash, but two stacks never share one: all frames are
 * compared.
 */
__noinline __u32 store_stack(__u32 room)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	__u32 slot = 0, found = 0;
	struct stack *st, *old;
	struct hashing h = {};
	struct tally *tally;
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
	for (__u32 try = 0; try < 3; try++) {
		id += !id;
		old = bpf_map_lookup_elem(&stacks, &id);
		if (!old) {
			long err;

			slot = slot ? slot : new_slot();
			tally = tally_at(slot);
			if (!tally)
				break;
			tally->id = id;
			tally->live = tally->total = tally->total_bytes = 0;
			st->slot = slot;
			st->printed = 0;
			err = bpf_map_update_elem(&stacks, &id, st, BPF_NOEXIST);
			if (!err)
				slot = 0;
			else if (err != EXIST_ERR)
				break;
			old = bpf_map_lookup_elem(&stacks, &id);
		}
		if (old && same_stack(room, id)) {
			found = old->slot;
			break;
		}
		id++;
	}
	spare(slot);
	return found;
}

/*
 * The slot of the stack that was unwound in a room for a call that returns to ret; 0: there
 * is no room for it. It is learned, unless at is 0.
 */
__noinline __u32 settle_stack(__u32 room, __u64 ret, __u64 at, __u64 tag, __u64 site)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	__u32 slot;

	if (!s)
		return 0;
	cut_above(room, ret);
	slot = store_stack(room);
	/* Without the stack of a release nothing is wrong in the account. */
	if (!slot && s->stack.role != STACK_RELEASED)
		lose(LOST_STACKS_FULL);
	if (knowing.on && slot && at && !s->stack.cut)
		learn_stack(s, at, ret, tag, site, slot);
	return slot;
}

/* Whether a stack that was told by comparing is the one that is unwound. */
static __always_inline void verify_stack(void *ctx, struct scratch *s, const struct caller *c, __u32 slot)
{
	unwind(ctx, s, c->ret);
	if (!same_stack(s->room, slot_stack(slot)))
		lose(LOST_MERGED);
	__sync_fetch_and_add(&verified, 1);
}

/* The slot of this call's stack; 0: there is no room for it. */
static __always_inline __u32 stack_slot(void *ctx, struct scratch *s, const struct caller *c,
				      __u32 load, __u32 role)
{
	__u64 at = 0, tag = 0, site = c->site == c->ret ? 0 : c->site;
	struct stack *st = &s->stack;

	st->load = load;
	st->role = role;
	st->site = site;
	st->needed = role >= STACK_WRONG;
	/* A kprobe's ctx is no place on the stack that is unwound. */
	if (knowing.on && !c->sp && !c->apart && !in_irq()) {
		__u32 slot;

		at = address_by_own(ctx);
		tag = known_tag(load, role, at);
		slot = known_stack(at, c->ret, tag, site, s->room);
		if (slot) {
			if (knowing.verify)
				verify_stack(ctx, s, c, slot);
			return slot;
		}
	}
	unwind_full(ctx, s);
	return settle_stack(s->room, c->ret, at, tag, site);
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
		key = *(volatile __u64 *)&e->key;
		if (key == (own ^ 3) && e->addr == addr) {
			e->key = 0;
			return step_in(false);
		}
		if (!key && !__sync_val_compare_and_swap(&e->key, 0, own)) {
			e->addr = addr;
			return step_in(true);
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
