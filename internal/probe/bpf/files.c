/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The report as files that plain cat reads, while no process of ours runs: BPF
 * iterators, one program a file, pinned in a directory of the target. The
 * formats are the ancestor's. Requires Linux 5.9.
 */
#include "cell.h"

struct seq_file;

/* include/linux/bpf.h, since 5.8 */
struct iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
};

struct iter_map_elem {
	struct iter_meta *meta;
	void *map;
	void *key;
	void *value;
};

/* The target that this set of files is about. */
const volatile __u32 file_target = 0;

#define print(seq, fmt, args...) BPF_SEQ_PRINTF(seq, fmt, ##args)

SEC("iter/bpf_map_elem")
int file_info(struct iter_map_elem *ctx)
{
	struct load *ld = ctx->value;
	struct seq_file *seq = ctx->meta->seq;
	struct target *tg;
	__u32 t = file_target;

	if (!ld || ld->state == LOAD_NONE || ld->target != t)
		return 0;
	tg = bpf_map_lookup_elem(&targets, &t);
	if (!tg)
		return 0;
	print(seq, "Target module: \"%s\", init area at %lx, core area at %lx\n", tg->name, ld->init,
	      ld->core);
	print(seq, "Allocations: %llu\nPossible leaks: %llu\nUnallocated frees: %llu\n",
	      ld->allocations, ld->live, ld->wrong_frees);
	if (ld->mismatched)
		print(seq, "Mismatched releases: %llu\n", ld->mismatched);
	return 0;
}

/*
 * Which function of the target, as an index into syms, made the call that
 * returns to addr; -1: none. A global function, for the verifier looks at those
 * once, not once a frame.
 */
__noinline int function_at(__u32 load, __u64 addr)
{
	struct load *ld = bpf_map_lookup_elem(&loads, &load);
	__u64 section = section_of(load, addr), offset;
	__u32 lo = 0, hi, key;
	struct target *tg;
	int best = -1;

	if (!ld || section >= MAX_SECTIONS)
		return -1;
	key = ld->target;
	tg = bpf_map_lookup_elem(&targets, &key);
	if (!tg)
		return -1;
	barrier_var(section); /* its bounds are to be where it is used */
	offset = addr - 1 - ld->section[section % MAX_SECTIONS];
	hi = tg->syms;
	for (int i = 0; i < 20; i++) {
		__u32 mid = (lo + hi) / 2, n = tg->first_sym + mid;
		struct sym *sym;

		if (lo >= hi)
			break;
		sym = bpf_map_lookup_elem(&syms, &n);
		if (!sym)
			return -1;
		if (sym->section < section || (sym->section == section && sym->offset <= offset)) {
			best = n;
			lo = mid + 1;
		} else {
			hi = mid;
		}
	}
	return best;
}

/* A stack that is printed. */
struct printing {
	struct seq_file *seq;
	struct target *tg;
	struct load *ld;
	struct stack *st;
	__u32 load;
	long err;
};

static __always_inline void print_frame(struct printing *p, __u64 addr)
{
	int n = function_at(p->load, addr);
	struct sym *sym = n < 0 ? NULL : bpf_map_lookup_elem(&syms, &n);

	if (sym) {
		__u64 offset = addr - p->ld->section[sym->section % MAX_SECTIONS] - sym->offset;

		if (offset <= sym->size) {
			p->err |= print(p->seq, "[<%lx>] %s+0x%lx/0x%lx [%s]\n", addr, sym->name, offset,
					(__u64)sym->size, p->tg->name);
			return;
		}
	}
	p->err |= print(p->seq, "[<%lx>] %pB\n", addr, (void *)addr);
}

static long print_nth(__u32 i, struct printing *p)
{
	if (i >= MAX_FRAMES || i >= p->st->frames)
		return 1;
	print_frame(p, p->st->frame[i]);
	return 0;
}

/* With bpf_loop the verifier looks at a frame once. */
static __always_inline void print_stack(struct printing *p)
{
	if (p->st->site)
		print_frame(p, p->st->site);
	if (layout.loops) {
		bpf_loop(MAX_FRAMES, print_nth, p, 0);
		return;
	}
	for (__u32 i = 0; i < MAX_FRAMES; i++) {
		if (print_nth(i, p))
			break;
	}
}

static __always_inline long print_process(struct seq_file *seq, const char *comm, __u32 pid, __u8 irq)
{
	if (irq)
		return print(seq, "<IRQ>\n");
	return print(seq, "Process: %s (PID: %d)\n", comm, pid);
}

#define RULE "----------------------------------------\n"

/*
 * Shows the first object of each stack. A reading that has run out of room in
 * its buffer is repeated by the kernel from this object on, so that a stack is
 * marked as shown only when all of it fitted.
 */
SEC("iter/bpf_map_elem")
int file_possible_leaks(struct iter_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct object *o = ctx->value;
	struct cell *c = ctx->value;
	struct tally *tally;
	__u64 address;
	struct stack *st;
	struct target *tg;
	struct load *ld;
	__u32 t = file_target, i;
	struct printing p = {.seq = seq};
	__u64 stack;

	if (!o || !c)
		return 0;
	if (layout.cells) {
		if (c->key <= CELL_TAKEN)
			return 0;
		o = &c->object;
	}
	i = o->load - 1;
	ld = bpf_map_lookup_elem(&loads, &i);
	if (!ld || ld->target != t)
		return 0;
	tg = bpf_map_lookup_elem(&targets, &t);
	if (!tg)
		return 0;
	i = o->slot;
	tally = bpf_map_lookup_elem(&tallies, &i);
	stack = tally ? tally->id : 0;
	st = bpf_map_lookup_elem(&stacks, &stack);
	if (st && st->printed == ctx->meta->session_id)
		return 0;
	address = o->address;
	p.ld = ld;
	p.tg = tg;
	p.st = st;
	p.load = o->load - 1;

	p.err = print_process(seq, o->comm, o->pid, o->irq);
	if (o->size)
		p.err |= print(seq, "Address: 0x%lx, size: %llu; stack trace of the allocation:\n", address,
			     o->size);
	else
		p.err |= print(seq, "Address: 0x%lx, size: unknown; stack trace of the allocation:\n",
			     address);
	if (st) {
		print_stack(&p);
		if (tally && tally->live > 1)
			p.err |= print(seq, "+%llu more allocation(s) with the same call stack.\n",
				     tally->live - 1);
	} else {
		print_frame(&p, o->call_site);
	}
	p.err |= print(seq, RULE);
	if (st && !p.err)
		st->printed = ctx->meta->session_id;
	return 0;
}

SEC("iter/bpf_map_elem")
int file_unallocated_frees(struct iter_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct wrong *w = ctx->value;
	__u64 *key = ctx->key, stack;
	struct printing p = {.seq = seq};
	struct stack *st;
	struct target *tg;
	struct load *ld;
	__u32 t = file_target, i;

	if (!w || !key)
		return 0;
	i = w->load - 1;
	stack = *key;
	ld = bpf_map_lookup_elem(&loads, &i);
	if (!ld || ld->target != t)
		return 0;
	tg = bpf_map_lookup_elem(&targets, &t);
	st = bpf_map_lookup_elem(&stacks, &stack);
	if (!tg || !st)
		return 0;
	print_process(seq, w->self.comm, w->self.pid, w->self.irq);
	print(seq, "Address: 0x%lx; stack trace of the deallocation:\n", w->address);
	p.ld = ld;
	p.tg = tg;
	p.st = st;
	p.load = i;
	print_stack(&p);
	if (w->what == WRONG_DOUBLE)
		print(seq, "It had been released already.\n");
	if (w->what == WRONG_MISMATCHED)
		print(seq, "It is not this function's to release.\n");
	if (w->count > 1)
		print(seq, "+%llu more deallocation(s) with the same call stack.\n", w->count - 1);
	print(seq, RULE);
	return 0;
}

/* The names of all addresses in stacks that matter, for the report's writer. */
SEC("iter/bpf_map_elem")
int file_symbols(struct iter_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct stack *st = ctx->value;
	struct tally *tally;
	__u32 slot;

	if (!st)
		return 0;
	slot = st->slot;
	tally = bpf_map_lookup_elem(&tallies, &slot);
	if (!st->needed && (!tally || !tally->live))
		return 0;
	for (__u32 i = 0; i < MAX_FRAMES; i++) {
		if (i >= st->frames)
			break;
		print(seq, "%lx %pB\n", st->frame[i], (void *)st->frame[i]);
	}
	return 0;
}
