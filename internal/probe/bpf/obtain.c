/* SPDX-License-Identifier: GPL-2.0 */
/* Functions that hand out objects, seen when they return. */
#include "account.h"

static __always_inline __u64 narrowed(__u64 arg, __u8 i)
{
	return spec.narrow >> i & 1 ? (__u32)arg : arg;
}

/* A number among the arguments. */
static __always_inline __u64 number_arg(const __u64 *args, __u8 i)
{
	return i < MAX_ARGS ? narrowed(args[i], i) : 0;
}

/* The length of a string, its end included; 0: it fills the room, and may be longer. */
static __always_inline __u64 string_size(__u64 addr)
{
	struct scratch *s = enter();
	long n;

	if (!s)
		return 0;
	n = bpf_probe_read_kernel_str(s->string, sizeof(s->string), (void *)addr);
	leave();
	return n > 0 && n < MAX_STRING ? n : 0;
}

/* The size of what was handed out, by the arguments that tell it. */
static __always_inline __u64 size_by(__u64 a, __u64 b, __u64 addr)
{
	__u32 field = 0;

	switch (spec.size_from) {
	case SIZE_ARG:
		return a * b;
	case SIZE_ORDER:
		return 4096ULL << (a & 31);
	case SIZE_PAGES:
		return a * 4096;
	case SIZE_FIELD:
		bpf_probe_read_kernel(&field, sizeof(field), (void *)a + spec.size_offset);
		return field;
	case SIZE_STRING:
		return addr ? string_size(addr) : 0;
	}
	return 0;
}

static __always_inline __u64 size_of_call(const __u64 *args, __u64 addr)
{
	return size_by(number_arg(args, spec.size_a), spec.size_b < MAX_ARGS ? number_arg(args, spec.size_b) : 1, addr);
}

static __always_inline __u64 owner_of_call(const __u64 *args)
{
	return spec.owner < MAX_ARGS ? args[spec.owner] : 0;
}

static __always_inline bool failed(__u64 result)
{
	return (spec.succeeds == SUCCEEDS_ZERO && (__u32)result) ||
	       (spec.succeeds == SUCCEEDS_NONZERO && !(result & 0xffffffff));
}

/* Whether a target called; and who it was. Words that can't be read are counted. */
static __always_inline bool called_by_target(void *ctx, __u64 *w, struct caller *c)
{
	if (frame_read(ctx, w)) {
		lose(LOST_FRAME);
		return false;
	}
	return from_frame(ctx, w, c) && attribute_beyond(ctx, c);
}

/* A call has returned. */
static __always_inline int obtained(void *ctx, const __u64 *w, struct caller *c, bool ours)
{
	struct object *old;
	__u64 addr, key;

	if (spec.args > MAX_ARGS)
		return 0;
	addr = w[spec.args]; /* the result */
	if (failed(addr))
		return 0;
	if (spec.address < MAX_ARGS)
		addr = address_of(w[spec.address]);
	if (nothing(addr) || error_pointer(addr))
		return 0;
	if (!ours) {
		taken_by_others(addr);
		return 0;
	}
	if (spec.skip_if < MAX_ARGS && w[spec.skip_if] == addr)
		return 0;
	/*
	 * The old record goes where the block was resized in place. One from vmalloc may
	 * have been freed by a part of vfree that has no probe (vfree.part.0, 6.12 and
	 * later); it can't be anybody else's yet, for such addresses are kept back for long.
	 */
	if (spec.replaces < MAX_ARGS) {
		__u64 before = w[spec.replaces];

		key = key_of(before);
		if (before && (before == addr || before - layout.vmalloc_base < VMALLOC_SPAN)) {
			old = find(key);
			if (old)
				forget(key, old);
		}
	}
	remember(ctx, c, addr, size_of_call(w, addr), owner_of_call(w));
	return 0;
}

SEC("fexit/obtain")
int obtain_exit(void *ctx)
{
	__u64 w[FRAME_WORDS] = {};
	struct caller c = {};
	bool ours = called_by_target(ctx, w, &c);

	return obtained(ctx, w, &c, ours);
}

struct bulk {
	struct entry e;
	__u64 array; /* or the last link that was followed */
	bool list;
};

/* In turn: those of a list were put in front, the last one first. */
static __always_inline void obtain_nth(__u32 i, struct bulk *b)
{
	__u64 addr = word_at(b->list ? b->array : b->array + i * layout.word);

	if (b->list && addr) {
		b->array = addr;
		addr -= spec.link;
	}
	if (!nothing(addr) && !(spec.fills && find(key_of(addr))))
		enter_object(&b->e, addr);
}

static long obtain_one(__u32 i, struct bulk *b)
{
	obtain_nth(i, b);
	return 0;
}

/* How many objects a call was about. */
static __always_inline __u32 bulk_count(const __u64 *w, __u64 result, __u32 max)
{
	__u32 n = spec.count < MAX_ARGS ? w[spec.count] : result;

	if (n > max) {
		lose(LOST_BULK);
		n = max;
	}
	return n;
}

static __always_inline bool obtain_bulk_begin(void *ctx, const __u64 *w, struct caller *c, struct bulk *b)
{
	struct scratch *s;

	if (spec.args > MAX_ARGS || failed(w[spec.args]))
		return false;
	b->list = spec.list < MAX_ARGS && w[spec.list];
	if (spec.address >= MAX_ARGS)
		return false;
	b->array = w[spec.address];
	if (spec.list < MAX_ARGS && b->list)
		b->array = w[spec.list];
	if (!b->array)
		return false;
	s = enter();
	if (!s)
		return false;
	if (prepare(ctx, s, c, size_of_call(w, 0), owner_of_call(w), &b->e))
		return true;
	leave();
	return false;
}

static __always_inline int obtained_bulk(void *ctx, const __u64 *w, struct caller *c)
{
	struct bulk b = {};

	if (!obtain_bulk_begin(ctx, w, c, &b))
		return 0;
	if (spec.args <= MAX_ARGS)
		bpf_loop(bulk_count(w, w[spec.args], MAX_BULK), obtain_one, &b, 0);
	leave();
	return 0;
}

/*
 * Enters one of the objects that have all but the address in common with the one in a
 * room of the scratch map. A global function: the verifier looks at it once, not once an
 * object.
 */
__noinline int enter_one(__u32 room, __u64 addr)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	struct entry e = {.s = s};

	if (!s || nothing(addr) || (spec.fills && find(key_of(addr))))
		return 0;
	e.load = load_of(s->object.load);
	if (!e.load)
		return 0;
	e.tally = tally_at(s->object.slot);
	enter_object(&e, addr);
	return 0;
}

static __always_inline int obtained_bulk_short(void *ctx, const __u64 *w, struct caller *c)
{
	struct bulk b = {};
	__u32 n = 0;

	if (!obtain_bulk_begin(ctx, w, c, &b))
		return 0;
	if (spec.args <= MAX_ARGS)
		n = bulk_count(w, w[spec.args], MAX_BULK_SHORT);
	for (__u32 i = 0; i < MAX_BULK_SHORT; i++) {
		__u64 addr;

		if (i >= n)
			break;
		addr = word_at(b.list ? b.array : b.array + i * layout.word);
		if (b.list && addr) {
			b.array = addr;
			addr -= spec.link;
		}
		enter_one(b.e.s->room, addr);
	}
	leave();
	return 0;
}

/* Requires Linux 5.17 (bpf_loop). */
SEC("fexit/obtain_bulk")
int obtain_bulk(void *ctx)
{
	__u64 w[FRAME_WORDS];
	struct caller c = {};

	return called_by_target(ctx, w, &c) ? obtained_bulk(ctx, w, &c) : 0;
}

/* The same for kernels without. */
SEC("fexit/obtain_bulk_short")
int obtain_bulk_short(void *ctx)
{
	__u64 w[FRAME_WORDS];
	struct caller c = {};

	return called_by_target(ctx, w, &c) ? obtained_bulk_short(ctx, w, &c) : 0;
}

SEC("raw_tp/obtain")
int obtain_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 addr, a, owner;
	struct caller c = {};

	addr = tp_arg(ctx, spec.address);
	if (!mine(ctx, addr))
		return 0;
	c.ret = tp_arg(ctx, spec.call_site);
	if (!attribute_beyond(ctx, &c)) {
		taken_by_others(addr);
		return 0;
	}
	if (nothing(addr))
		return 0;
	a = spec.size_a < MAX_ARGS ? narrowed(tp_arg(ctx, spec.size_a), spec.size_a) : 0;
	owner = spec.owner < MAX_ARGS ? tp_arg(ctx, spec.owner) : 0;
	remember(ctx, &c, addr, size_by(a, 1, addr), owner);
	return 0;
}
