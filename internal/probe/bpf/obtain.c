/* SPDX-License-Identifier: GPL-2.0 */
/* Functions that hand out objects, seen when they return. */
#include "account.h"

static __always_inline __u64 object_size(struct scratch *s, const __u64 *args, __u64 addr)
{
	__u64 size = 0;

	switch (spec.size_from) {
	case SIZE_ARG:
		if (spec.size_a >= MAX_ARGS)
			return 0;
		size = args[spec.size_a];
		if (spec.size_b < MAX_ARGS)
			size *= args[spec.size_b];
		return size;
	case SIZE_ORDER:
		if (spec.size_a >= MAX_ARGS)
			return 4096;
		return 4096ULL << (args[spec.size_a] & 31);
	case SIZE_FIELD: {
		__u32 field = 0;

		if (spec.size_a >= MAX_ARGS)
			return 0;
		bpf_probe_read_kernel(&field, sizeof(field), (void *)args[spec.size_a] + spec.size_offset);
		return field;
	}
	case SIZE_STRING: {
		long n = bpf_probe_read_kernel_str(s->string, sizeof(s->string), (void *)addr);

		/* A string that fills the room may be longer: say that we don't know. */
		return n > 0 && n < MAX_STRING ? n : 0;
	}
	}
	return 0;
}

/* Target t, unless its call led to another function than the one probed; then -1. */
static __always_inline int calls_here(int t, __u64 call_site)
{
	return t >= 0 && call_leads(t, call_site) == LEADS_ELSEWHERE ? -1 : t;
}

/* Who called, and which target that is; the caller is 0 where it can't be known. */
static __always_inline int calling_target(void *ctx, __u64 *w, __u64 *caller)
{
	if (frame_read(ctx, w) || !(*caller = frame_caller(ctx, w))) {
		lose(LOST_FRAME);
		return -1;
	}
	return calls_here(target_of(*caller), *caller);
}

SEC("fexit/obtain")
int obtain_exit(void *ctx)
{
	__u64 w[FRAME_WORDS];
	__u64 caller, addr;
	struct scratch *s;
	int t;

	t = calling_target(ctx, w, &caller);
	if (t < 0 || spec.args > MAX_ARGS)
		return 0;
	addr = w[spec.args]; /* the result */
	if (nothing(addr) || error_pointer(addr))
		return 0;
	if (spec.skip_if < MAX_ARGS && w[spec.skip_if] == addr)
		return 0;
	s = enter();
	if (!s)
		return 0;
	if (spec.replaces < MAX_ARGS && w[spec.replaces] == addr)
		forget(key_of(addr)); /* resized in place: the old record goes */
	remember(ctx, s, t, caller, key_of(addr), object_size(s, w, addr));
	leave(s);
	return 0;
}

struct bulk {
	void *ctx;
	struct scratch *s;
	__u64 *array;
	__u64 caller, size;
	int t;
};

static long obtain_one(__u32 i, struct bulk *b)
{
	__u64 addr = 0;

	bpf_probe_read_kernel(&addr, sizeof(addr), b->array + i);
	if (!nothing(addr))
		remember(b->ctx, b->s, b->t, b->caller, key_of(addr), b->size);
	return 0;
}

/* Requires Linux 5.17 (bpf_loop). */
SEC("fexit/obtain_bulk")
int obtain_bulk(void *ctx)
{
	__u64 w[FRAME_WORDS];
	struct bulk b = { .ctx = ctx };
	__u64 n;

	b.t = calling_target(ctx, w, &b.caller);
	if (b.t < 0 || spec.args > MAX_ARGS || spec.address >= MAX_ARGS)
		return 0;
	n = w[spec.count < MAX_ARGS ? spec.count : spec.args] & 0xffffffff;
	b.array = (__u64 *)w[spec.address];
	b.s = enter();
	if (!b.s)
		return 0;
	b.size = object_size(b.s, w, 0);
	if (n > MAX_BULK) {
		lose(LOST_BULK);
		n = MAX_BULK;
	}
	bpf_loop(n, obtain_one, &b, 0);
	leave(b.s);
	return 0;
}

SEC("raw_tp/obtain")
int obtain_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 args[MAX_ARGS] = {};
	__u64 call_site, addr;
	struct scratch *s;
	int t;

	addr = tp_arg(ctx, spec.address);
	if (!mine(ctx, addr))
		return 0;
	call_site = tp_arg(ctx, spec.call_site);
	t = target_of(call_site);
	if (t < 0 && passes_through(call_site)) {
		s = enter();
		if (!s)
			return 0;
		call_site = caller_beyond(ctx, s, call_site);
		leave(s);
		t = target_of(call_site);
	}
	t = calls_here(t, call_site);
	if (t < 0 || nothing(addr))
		return 0;
	if (spec.size_a < MAX_ARGS)
		args[spec.size_a] = tp_arg(ctx, spec.size_a);
	s = enter();
	if (!s)
		return 0;
	remember(ctx, s, t, call_site, addr, object_size(s, args, addr));
	leave(s);
	return 0;
}
