/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions that take objects back, seen when they are entered, before the
 * memory can be anybody else's. Whoever calls them releases the object.
 */
#include "account.h"

/* What a release says of the object; 0: nothing. */
struct claims {
	__u64 size, owner;
};

static __always_inline __u64 whole_pages(__u64 size)
{
	return (size + 4095) & ~4095ULL;
}

/* Whether the object is another function's, or another owner's, to take back. */
static __always_inline bool mismatched(const struct object *o, const struct claims *says)
{
	if (!(o->kinds & spec.kinds & ~KIND_ORDERED))
		return true;
	if (says->owner && o->owner && says->owner != o->owner)
		return true;
	/* What was obtained to the byte may be given back by the page. */
	return spec.compare_size && says->size && o->size && !((o->kinds ^ spec.kinds) & KIND_ORDERED) &&
	       whole_pages(says->size) != whole_pages(o->size);
}

/* Whether the target itself made this call, to this very function. */
static __always_inline bool own(const struct caller *c)
{
	return c->t >= 0 && leads(c->t, c->site) == LEADS_HERE;
}

/*
 * What a target does with an object, or with what is none, by the call that was looked at and
 * unwound in a room. A global function, as most of what is seldom: the verifier looks at it
 * once. What it has to know is there, for the programs' stack has few bytes.
 */
__noinline int took(__u32 room)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &room);
	__u8 role = STACK_RELEASED, what = WRONG_MISMATCHED;
	struct freed *before = NULL;
	struct object *old;
	__u32 id;

	if (!s)
		return 0;
	old = find(s->call.key);
	if (s->call.bad) {
		id = load_now(s->call.t);
		if (!old) {
			before = released_before(s->call.key);
			what = before ? WRONG_DOUBLE : WRONG_UNALLOCATED;
		}
		role = STACK_WRONG + what;
	} else {
		id = old ? old->load : 0;
	}
	if (id && s->call.t >= 0)
		settle_stack(room, id, role);
	if (s->call.bad && id)
		wrong_release(s, old, before, what, id);
	/*
	 * A tracepoint tells that the memory goes, whatever was said; a function
	 * that was given what is not its own does nothing with it.
	 */
	if (old && !spec.check_only && (!s->call.bad || spec.tracepoint)) {
		note_release(s->call.site, s->call.irq, s->call.key, old, s->call.slot);
		forget(s->call.key, old);
	}
	return 0;
}

/* The same of a call, which took something so many times. */
static __always_inline void takes(void *ctx, struct scratch *s, struct caller *c, __u64 addr, __u64 key, bool bad,
				  __u64 times)
{
	s->call.address = addr;
	s->call.key = key;
	s->call.bad = bad;
	s->call.times = times;
	unwind_call(ctx, s, c);
	took(s->room);
}

/*
 * The same, for what mostly happens: a target's own object goes, by a stack that is known.
 * Says whether that was it.
 */
static __always_inline bool took_as_before(void *ctx, struct caller *c, __u64 key, struct object *old)
{
	__u32 slot = 0;

	if (!knowing.on)
		return false;
	c->irq = in_irq();
	if (c->t >= 0) {
		slot = stack_known(ctx, c, old->load, STACK_RELEASED);
		if (!slot)
			return false;
	}
	note_release(c->site, c->irq, key, old, slot);
	forget(key, old);
	return true;
}

/* learn: the call's stack, should that be a new one. */
static __always_inline void release(void *ctx, struct caller *c, __u64 addr, const struct claims *says, bool learn)
{
	struct object *old;
	struct scratch *s;
	bool fits, bad;
	__u64 key;

	if (nothing(addr))
		return;
	key = last_key(key_of(addr));
	old = find(key);
	if (!old && spec.foreign)
		return;
	attribute(ctx, c);
	fits = old && !mismatched(old, says);
	if (fits && (spec.check_only || took_as_before(ctx, c, key, old)))
		return;
	bad = !fits && own(c);
	if (!fits && !bad && (!old || spec.check_only))
		return;
	s = enter();
	if (!s) {
		/* The account is more than the story. */
		if (old && !spec.check_only)
			forget(key, old);
		return;
	}
	takes(ctx, s, c, addr, key, bad, 1);
	if (learn && knowing.on)
		learn_stack(s);
	leave();
}

static __always_inline __u64 said_size(const __u64 *w)
{
	__u64 a = number_arg(w, spec.size_a);

	if (spec.size_from == SIZE_ORDER)
		return 4096ULL << (a & 31);
	return spec.size_from == SIZE_ARG ? a : 0;
}

static __always_inline int releases(void *ctx, const __u64 *w, struct caller *c)
{
	struct claims says = {};
	__u64 addr;

	if (spec.address >= MAX_ARGS)
		return 0;
	addr = address_of(w[spec.address]);
	if (spec.from == FROM_RCU_HEAD) {
		/* head is a member of the object, the function its offset; no head: the object itself */
		__u64 func;

		if (spec.count >= MAX_ARGS)
			return 0;
		func = w[spec.count];
		addr = addr ? addr - func : func;
	}
	if (spec.last < MAX_ARGS) {
		__u32 count = 0;

		bpf_probe_read_kernel(&count, sizeof(count), (void *)w[spec.last] + spec.last_offset);
		if (count > 1)
			return 0;
	}
	says.size = said_size(w);
	if (spec.owner < MAX_ARGS)
		says.owner = w[spec.owner];
	release(ctx, c, addr, &says, true);
	return 0;
}

static __always_inline bool read_call(void *ctx, __u64 *w, struct caller *c)
{
	if (frame_read(ctx, w)) {
		lose(LOST_FRAME);
		return false;
	}
	from_frame(ctx, w, c);
	return true;
}

SEC("fentry/release")
int release_entry(void *ctx)
{
	__u64 w[FRAME_WORDS];
	struct caller c = {};

	if (!read_call(ctx, w, &c) || spec.address >= MAX_ARGS || !mine(ctx, w[spec.address]))
		return 0;
	return releases(ctx, w, &c);
}

struct bulk_release {
	void *ctx;
	__u64 array;
	struct caller c;
	struct claims says;
};

static long release_one(__u32 i, struct bulk_release *b)
{
	release(b->ctx, &b->c, word_at(b->array + i * layout.word), &b->says, false);
	return 0;
}

static __always_inline bool release_bulk_begin(void *ctx, const __u64 *w, struct bulk_release *b)
{
	b->ctx = ctx;
	b->c.apart = true;
	if (spec.address >= MAX_ARGS || spec.count >= MAX_ARGS)
		return false;
	b->array = w[spec.address];
	if (spec.owner < MAX_ARGS)
		b->says.owner = w[spec.owner];
	return true;
}

static __always_inline int releases_bulk(void *ctx, const __u64 *w, struct bulk_release *b)
{
	if (release_bulk_begin(ctx, w, b))
		bpf_loop(bulk_count(w, 0, MAX_BULK), release_one, b, 0);
	return 0;
}

/*
 * The same for kernels without. The verifier looks at each round of the loop, so
 * that it does little: of several wrong releases in one call the last is shown.
 */
static __always_inline int releases_bulk_short(void *ctx, const __u64 *w, struct bulk_release *b)
{
	struct scratch *s;
	__u32 n;

	if (!release_bulk_begin(ctx, w, b))
		return 0;
	s = enter();
	if (!s)
		return 0;
	/* Counted in memory: of a variable the verifier would follow each value. */
	s->wrong.count = 0;
	n = bulk_count(w, 0, MAX_BULK_SHORT);
	for (__u32 i = 0; i < MAX_BULK_SHORT; i++) {
		__u64 addr, key;
		struct object *old;

		if (i >= n)
			break;
		addr = word_at(b->array + i * layout.word);
		if (nothing(addr))
			continue;
		key = key_of(addr);
		old = find(key);
		if (old) {
			forget(key, old);
		} else {
			s->wrong.address = addr;
			s->wrong.count++;
		}
	}
	attribute(ctx, &b->c);
	if (s->wrong.count && !spec.foreign && own(&b->c))
		takes(ctx, s, &b->c, s->wrong.address, key_of(s->wrong.address), true, s->wrong.count);
	leave();
	return 0;
}

/* Requires Linux 5.17 (bpf_loop). */
SEC("fentry/release_bulk")
int release_bulk(void *ctx)
{
	struct bulk_release b = {};
	__u64 w[FRAME_WORDS];

	if (!read_call(ctx, w, &b.c) || spec.address >= MAX_ARGS || !mine(ctx, w[spec.address]))
		return 0;
	return releases_bulk(ctx, w, &b);
}

SEC("fentry/release_bulk_short")
int release_bulk_short(void *ctx)
{
	struct bulk_release b = {};
	__u64 w[FRAME_WORDS];

	return read_call(ctx, w, &b.c) ? releases_bulk_short(ctx, w, &b) : 0;
}

SEC("raw_tp/release")
int release_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 addr = tp_arg(ctx, spec.address);
	struct claims says = {};
	struct caller c = {};

	if (!mine(ctx, addr))
		return 0;
	if (spec.call_site != NO_ARG)
		c.ret = tp_arg(ctx, spec.call_site);
	release(ctx, &c, addr, &says, true);
	return 0;
}
