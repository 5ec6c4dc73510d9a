/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The same without trampolines: kprobes and kretprobes, for kernels without BTF.
 *
 * At a kprobe of a function's first instruction the return address is on top of the
 * stack. At a kretprobe neither the arguments nor the caller can be read any more, nor
 * can the stack be unwound: what is needed of them is kept from the entry on, by where
 * the return address lay.
 *
 * The kernel runs no such program while another one runs on the CPU
 * (kernel/trace/bpf_trace.c, trace_call_bpf), and does not count that before 6.7. So they
 * count how often they run: the kernel counts how often a kprobe was hit.
 */
#include "regs.h"

/* A target's call that has not returned. */
struct open_call {
	__u64 args[MAX_ARGS];
	__u64 ret, site;
	__u64 stack;
	__u32 load;
	int target;
	__u32 slot, pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct open_call);
} open_calls SEC(".maps");

static __always_inline void ran_at(__u32 base)
{
	__u32 i = base + spec.id;

	if (i < 2 * MAX_PROBES)
		__sync_fetch_and_add(&ran[i], 1);
}

/* Calls of several functions may have one place for their return address. */
static __always_inline __u64 open_key(__u64 sp)
{
	return sp ^ (__u64)(spec.id + 1) << 48;
}

/* The caller of a function whose first instruction this is. */
static __always_inline void from_regs(void *ctx, struct caller *c)
{
	c->sp = regs_sp(ctx);
	c->ret = word_at(c->sp);
}

SEC("kprobe/obtain")
int obtain_call(void *ctx)
{
	struct open_call call = {};
	struct caller c = {};
	__u64 key;

	ran_at(0);
	from_regs(ctx, &c);
	key = open_key(c.sp);
	if (!attribute_beyond(ctx, &c))
		return 0;
	call.load = load_now(c.t);
	if (!call.load)
		return 0;
	call.slot = stack_unwound(ctx, NULL, &c, call.load, STACK_OBTAINED);
	call.stack = slot_stack(call.slot);
	regs_arguments(ctx, call.args);
	call.ret = c.ret;
	call.site = c.site;
	call.target = c.t;
	/* One that lies there has returned unseen. */
	if (bpf_map_delete_elem(&open_calls, &key) == 0)
		lose(LOST_RETURN);
	if (bpf_map_update_elem(&open_calls, &key, &call, BPF_ANY))
		lose(LOST_OPEN);
	return 0;
}

/* Takes what obtain_call has kept; w is the arguments, and the result behind them. */
static __always_inline bool returned(void *ctx, __u64 *w, struct caller *c)
{
	__u64 key = open_key(regs_sp(ctx) - layout.word);
	struct open_call *call = bpf_map_lookup_elem(&open_calls, &key);

	ran_at(MAX_PROBES);
	c->t = -1;
	if (call) {
#pragma unroll
		for (__u32 i = 0; i < MAX_ARGS; i++)
			w[i] = call->args[i];
		c->ret = call->ret;
		c->site = call->site;
		c->stack = call->stack;
		c->slot_then = call->slot;
		c->t = call->target;
		c->unwound = true;
		bpf_map_delete_elem(&open_calls, &key);
	}
	if (spec.args <= MAX_ARGS)
		w[spec.args] = regs_result(ctx);
	return call;
}

SEC("kprobe/obtain_return")
int obtain_return(void *ctx)
{
	__u64 w[FRAME_WORDS] = {};
	struct caller c = {};
	bool ours = returned(ctx, w, &c);

	return obtained(ctx, w, &c, ours);
}

/* Requires Linux 5.17 (bpf_loop). */
SEC("kprobe/obtain_bulk_return")
int obtain_bulk_return(void *ctx)
{
	__u64 w[FRAME_WORDS] = {};
	struct caller c = {};

	return returned(ctx, w, &c) ? obtained_bulk(ctx, w, &c) : 0;
}

SEC("kprobe/obtain_bulk_short_return")
int obtain_bulk_short_return(void *ctx)
{
	__u64 w[FRAME_WORDS] = {};
	struct caller c = {};

	return returned(ctx, w, &c) ? obtained_bulk_short(ctx, w, &c) : 0;
}

/* A kprobe's form of what a function that takes objects back does, to a caller or what holds one. */
#define RELEASE_CALL(name, what, type, caller)  \
	SEC("kprobe/" #name)                    \
	int name(void *ctx)                     \
	{                                       \
		__u64 w[MAX_ARGS] = {};         \
		type c = {};                    \
		ran_at(0);                      \
		from_regs(ctx, caller);         \
		regs_arguments(ctx, w);         \
		return what(ctx, w, &c);        \
	}

RELEASE_CALL(release_call, releases, struct caller, &c)
RELEASE_CALL(release_bulk_call, releases_bulk, struct bulk_release, &c.c)
RELEASE_CALL(release_bulk_short_call, releases_bulk_short, struct bulk_release, &c.c)
