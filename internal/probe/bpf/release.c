/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions that take objects back, seen when they are entered, before the
 * memory can be anybody else's. Whoever calls them releases the object.
 */
#include "account.h"

static __always_inline void release(void *ctx, __u64 caller, __u64 addr)
{
	__u64 key;
	int t;

	if (nothing(addr))
		return;
	key = key_of(addr);
	if (spec.check_only ? known(key) : forget(key))
		return;
	t = target_of(caller);
	if (t >= 0)
		wrong_free(ctx, t, caller, addr);
}

SEC("fentry/release")
int release_entry(void *ctx)
{
	__u64 w[FRAME_WORDS];
	__u64 caller, addr;

	if (frame_read(ctx, w)) {
		lose(LOST_FRAME);
		return 0;
	}
	caller = frame_caller(ctx, w);
	if (!caller)
		lose(LOST_FRAME);
	if (spec.address >= MAX_ARGS)
		return 0;
	addr = w[spec.address];

	if (spec.from == FROM_RCU_HEAD) {
		/* head is a member of the object, the function its offset; no head: the object itself */
		__u64 func;

		if (spec.count >= MAX_ARGS)
			return 0;
		func = w[spec.count];
		addr = addr ? addr - func : func;
	}
	release(ctx, caller, addr);
	return 0;
}

struct bulk_release {
	void *ctx;
	__u64 *array;
	__u64 caller;
	int t; /* the calling target */
};

static long release_one(__u32 i, struct bulk_release *b)
{
	__u64 addr = 0;

	bpf_probe_read_kernel(&addr, sizeof(addr), b->array + i);
	if (!nothing(addr) && !forget(key_of(addr)) && b->t >= 0)
		wrong_free(b->ctx, b->t, b->caller, addr);
	return 0;
}

/* Requires Linux 5.17 (bpf_loop). */
SEC("fentry/release_bulk")
int release_bulk(void *ctx)
{
	struct bulk_release b = { .ctx = ctx, .t = -1 };
	__u64 w[FRAME_WORDS];
	__u64 n;

	if (frame_read(ctx, w)) {
		lose(LOST_FRAME);
		return 0;
	}
	if (spec.address >= MAX_ARGS || spec.count >= MAX_ARGS)
		return 0;
	b.caller = frame_caller(ctx, w);
	if (b.caller)
		b.t = target_of(b.caller);
	else
		lose(LOST_FRAME);
	b.array = (__u64 *)w[spec.address];
	n = w[spec.count];
	if (n > MAX_BULK) {
		lose(LOST_BULK);
		n = MAX_BULK;
	}
	bpf_loop(n, release_one, &b, 0);
	return 0;
}

SEC("raw_tp/release")
int release_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 addr = tp_arg(ctx, spec.address);

	if (mine(ctx, addr))
		release(ctx, spec.call_site == NO_ARG ? 0 : tp_arg(ctx, spec.call_site), addr);
	return 0;
}
