/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The trace: what a target calls, and what the kernel calls in a target. One pair of
 * programs a function; what they have seen goes to a ring (ring.h) in the order in which
 * it happened, and user space joins the halves of a call.
 *
 * The halves have one number: where on the stack the call's frame lies. No two calls
 * that have not returned have the same.
 */
#include "ring.h"

enum trace_what {
	TRACE_CALL = 1,
	TRACE_RETURN,
	TRACE_WHOLE,
	TRACE_LOADED,
	TRACE_UNLOADED,
};

#define TRACE_ARGS 6
#define TRACE_CAPTURES 8
#define TRACE_CAPTURE 64
#define TRACE_RESULT 0xff /* instead of an argument: the result */

/* How a result says that the call failed. */
enum trace_fails { FAILS_NEVER, FAILS_INT, FAILS_LONG, FAILS_POINTER };

/* What one program of the trace does; beside spec. */
struct trace_spec {
	__u32 function; /* its number */
	__u8 callback; /* a function of a target, entered from outside of it */
	__u8 target;
	__u8 captures, results; /* pieces of memory; of them, those that the result points to */
	__u8 late; /* whether the call is wanted shows when it returns */
	__u8 filtered; /* there is an expression: trace_filter() */
	__u8 errors; /* only calls that fail */
	__u8 fails;
	__u8 paired; /* returns are told apart from others' by the map of open calls */
	__u8 sited; /* only calls from some sites */
	__u8 accounted; /* what is obtained is looked after as well */
	__u8 unprobed; /* there is no probe at the function itself */
	__u8 kprobe; /* a kprobe, which may be a breakpoint */
	__u8 direct; /* the arguments are taken from the context */
	__u8 life; /* that targets come and go is recorded, too */
	struct {
		__u8 from;
		__u8 text;
		__u16 size;
		__u32 offset;
	} capture[TRACE_CAPTURES];
};

struct trace_event {
	__u64 mark; /* see ring.h */
	__u8 what, context, target, captures;
	__u32 function;
	__u64 time, id;
	__u64 result; /* so far a return: the rest is that of the call */
	__u64 duration;
	__u32 tgid, pid, cpu, load;
	__u64 site;
	__u64 live; /* bytes that the target has outstanding */
	char comm[COMM_LEN];
	__u64 args[TRACE_ARGS];
};

struct trace_capture {
	__u8 number, failed;
	__u16 length; /* of a text, its NUL included */
	__u32 pad;
	char data[TRACE_CAPTURE];
};

/* What goes to the ring buffer, by how much there is to capture. */
#define TRACE_RECORD(n)                          \
	struct trace_record##n {                 \
		struct trace_event e;            \
		struct trace_capture capture[n]; \
	}
TRACE_RECORD(1);
TRACE_RECORD(2);
TRACE_RECORD(4);
TRACE_RECORD(8);

/* What an expression is about; laid out in internal/trace/filter as well. */
struct filter_in {
	__u64 args[TRACE_ARGS];
	__u64 result, duration;
	__u32 pid, tid;
	__u32 cpu, context;
	char comm[COMM_LEN];
};

const volatile struct trace_spec tracing = {};

/* By a function's number. */
struct trace_count {
	__u64 full; /* halves that found no room in the ring buffer */
	__u64 crowded; /* calls that found no room among the open ones */
	__u64 frame; /* whose caller could not be told */
	__u64 checked; /* entries that were not seen, and looked at when they returned */
	__u64 unreturned; /* open calls whose frame was used again: they must have returned */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_count);
} trace_counts SEC(".maps");

/* Calls that have not returned, where that has to be known. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct trace_record8);
} trace_open SEC(".maps");

/* The same, without what was seen. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u64); /* the function */
} trace_paired SEC(".maps");

/* A bit for each offset of a section, laid out as elsewhere is: calls from there are wanted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} trace_sites SEC(".maps");

struct trace_record8 trace_nothing; /* what a new entry holds first */

#define TRACE_COUNT(what)                                                             \
	do {                                                                          \
		__u32 number = fn;                                                    \
		struct trace_count *count = bpf_map_lookup_elem(&trace_counts, &number); \
		if (count)                                                            \
			__sync_fetch_and_add(&count->what, 1);                        \
	} while (0)

/*
 * include/linux/preempt.h; layout.irq_mask says which of its forms it is. A breakpoint
 * counts as an NMI (irqentry_nmi_enter, kernel/entry/common.c), which is taken off again.
 */
static __always_inline __u8 trace_context(void)
{
	__u32 count = preemption() & layout.irq_mask;
	bool late = layout.irq_mask & 0x10000000;
	__u32 nmi = late ? 0x10000000 : 0x00f00000;

	if (tracing.kprobe && count & nmi)
		count -= late ? 0x11000000 : 0x00110000;
	if (!count)
		return 0;
	if (count & nmi)
		return 3;
	return count & ~0x100 ? 2 : 1;
}

/* Who calls. */
static __always_inline void trace_task(__u32 *tgid, __u32 *pid, __u32 *cpu, char *comm)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	current_comm(comm);
	*tgid = pid_tgid >> 32;
	*pid = pid_tgid;
	*cpu = bpf_get_smp_processor_id();
}

/*
 * Whether the call is wanted: the body is replaced by what the user's expression was
 * compiled to.
 */
static __noinline int trace_filter(struct filter_in *in, __u32 function)
{
	int wanted = 1;

	asm volatile("" : "+r"(wanted) : "r"(in), "r"(function));
	return wanted;
}

/* Of a call that has returned. */
static __always_inline bool trace_wanted(__u32 fn, struct trace_event *e)
{
	struct filter_in in;

	if (!tracing.filtered)
		return true;
	__builtin_memcpy(in.args, e->args, sizeof(in.args));
	in.result = e->result;
	in.duration = e->duration;
	in.pid = e->tgid;
	in.tid = e->pid;
	in.cpu = e->cpu;
	in.context = e->context;
	__builtin_memcpy(in.comm, e->comm, sizeof(in.comm));
	return trace_filter(&in, fn);
}

/* Of one that begins: before there is a record, for most are not wanted. */
static __always_inline bool trace_wanted_yet(__u32 fn, const __u64 *args)
{
	struct filter_in in;

	if (!tracing.filtered)
		return true;
	__builtin_memcpy(in.args, args, sizeof(in.args));
	in.result = 0;
	in.duration = 0;
	in.context = trace_context();
	trace_task(&in.pid, &in.tid, &in.cpu, in.comm);
	return trace_filter(&in, fn);
}

static __always_inline bool trace_failed(__u64 result)
{
	switch (tracing.fails) {
	case FAILS_INT:
		return (__u32)result >= (__u32)-4095;
	case FAILS_LONG:
		return error_pointer(result);
	case FAILS_POINTER:
		return !result || error_pointer(result);
	}
	return false;
}

/* Whether a call that returns to addr is in a function whose calls are wanted. */
static __noinline int trace_site_wanted(__u32 t, __u64 addr)
{
	__u32 load, i = t;
	struct target *tg;
	struct load *ld;

	if (t >= MAX_TARGETS)
		return 0;
	load = loaded[t].load - 1;
	tg = bpf_map_lookup_elem(&targets, &i);
	ld = bpf_map_lookup_elem(&loads, &load);
	if (!tg || !ld)
		return 0;
	for (i = 0; i < MAX_SECTIONS; i++) {
		__u64 offset = addr - 1 - ld->section[i], *word;

		if (i >= layout.sections)
			break;
		if (ld->section[i] && offset < tg->section[i].size) {
			__u32 at = tg->section[i].elsewhere + offset / 64;

			word = bpf_map_lookup_elem(&trace_sites, &at);
			return word && *word >> (offset % 64) & 1;
		}
	}
	return 0;
}

static __always_inline void trace_capture(struct trace_capture *c, __u32 i, const __u64 *args, __u64 result)
{
	__u8 from = tracing.capture[i].from;
	__u64 p = from == TRACE_RESULT ? result : from < TRACE_ARGS ? args[from] : 0;
	long n;

	c->number = i;
	c->failed = 0;
	c->pad = 0;
	p += tracing.capture[i].offset;
	if (tracing.capture[i].text) {
		n = bpf_probe_read_kernel_str(c->data, sizeof(c->data), (void *)p);
		c->length = n;
		c->failed = n < 0;
	} else {
		__u32 size = tracing.capture[i].size;

		if (size > TRACE_CAPTURE)
			size = TRACE_CAPTURE;
		n = bpf_probe_read_kernel(c->data, size, (void *)p);
		c->length = size;
		c->failed = n < 0;
	}
}

/* The captures of the arguments, or that of the result; they follow the event. */
#define TRACE_CAPTURE_ALL(r, max, of_result)                                                   \
	_Pragma("unroll") for (__u32 i = 0; i < max; i++)                                      \
	{                                                                                      \
		if (i >= tracing.captures)                                                     \
			break;                                                                 \
		if ((tracing.capture[i].from == TRACE_RESULT) == of_result)                    \
			trace_capture(&(r)->capture[i], i, (r)->e.args, (r)->e.result);        \
		else if (!of_result)                                                           \
			(r)->capture[i].number = TRACE_RESULT;                                 \
	}

/* The word that begins with what it is, at one go. */
static __always_inline void trace_head(__u8 *at, __u8 what, __u8 context, __u8 target, __u8 captures, __u32 fn)
{
	*(__u64 *)at = what | (__u64)context << 8 | (__u64)target << 16 | (__u64)captures << 24 | (__u64)fn << 32;
}

/*
 * Everything of a call that is known when it begins. What is not, is left as it is: the
 * result, the duration, and what the target has outstanding where nobody counts that.
 */
static __always_inline void trace_describe(__u32 fn, struct trace_event *e, __u64 id, __u32 t, __u64 site)
{
	trace_head(&e->what, TRACE_CALL, trace_context(), t, tracing.captures, fn);
	e->time = bpf_ktime_get_ns();
	e->id = id;
	e->load = t < MAX_TARGETS ? loaded[t].load : 0;
	e->site = site;
	if (tracing.accounted) {
		__u32 load = e->load - 1;
		struct load *ld = bpf_map_lookup_elem(&loads, &load);

		if (ld)
			e->live = ld->live_bytes;
	}
	trace_task(&e->tgid, &e->pid, &e->cpu, e->comm);
}

#define TRACE_EMIT(n)                                                                          \
	do {                                                                                   \
		struct trace_record##n *r = ring_reserve(sizeof(*r), &mark);                   \
		if (!r) {                                                                      \
			TRACE_COUNT(full);                                                     \
			return 0;                                                              \
		}                                                                              \
		trace_describe(fn, &r->e, id, t, site);                                        \
		__builtin_memcpy(r->e.args, args, sizeof(r->e.args));                          \
		TRACE_CAPTURE_ALL(r, n, 0);                                                    \
		ring_submit(r, sizeof(*r), mark, false);                                                   \
	} while (0)

static __noinline int trace_unreturned(__u32 fn)
{
	TRACE_COUNT(unreturned);
	return 0;
}

/* A call has begun; says whether its return is of interest. */
static __always_inline bool trace_call(__u32 fn, __u64 id, __u32 t, __u64 site, const __u64 *args,
				       const __u64 *in)
{
	__u64 function = fn, mark;

	if (tracing.sited && !trace_site_wanted(t, site))
		return 0;
	if (tracing.late) {
		long open = bpf_map_update_elem(&trace_open, &id, &trace_nothing, BPF_NOEXIST);
		struct trace_record8 *r = bpf_map_lookup_elem(&trace_open, &id);

		if (!r) {
			TRACE_COUNT(crowded);
			return 0;
		}
		/* Of a thread that has ended its stack is used again as well. */
		if (open && (r->e.context || r->e.pid == (__u32)bpf_get_current_pid_tgid()))
			trace_unreturned(r->e.function);
		trace_describe(fn, &r->e, id, t, site);
		__builtin_memcpy(r->e.args, args, sizeof(r->e.args));
		TRACE_CAPTURE_ALL(r, TRACE_CAPTURES, 0);
		return 1;
	}
	if (!trace_wanted_yet(fn, args))
		return 0;
	if (tracing.captures == 0) {
		struct trace_event *e = ring_reserve(sizeof(*e), &mark);

		if (!e) {
			TRACE_COUNT(full);
			return 0;
		}
		trace_describe(fn, e, id, t, site);
		if (tracing.direct) {
#pragma unroll
			for (__u32 i = 0; i < TRACE_ARGS; i++)
				if (i < spec.args)
					e->args[i] = *(volatile __u64 *)&in[i];
		} else {
			__builtin_memcpy(e->args, args, sizeof(e->args));
		}
		ring_submit(e, sizeof(*e), mark, false);
	} else if (tracing.captures == 1) {
		TRACE_EMIT(1);
	} else if (tracing.captures == 2) {
		TRACE_EMIT(2);
	} else if (tracing.captures <= 4) {
		TRACE_EMIT(4);
	} else {
		TRACE_EMIT(8);
	}
	if (tracing.paired && bpf_map_update_elem(&trace_paired, &id, &function, BPF_ANY))
		TRACE_COUNT(crowded);
	return 1;
}

static __always_inline void trace_late(__u32 fn, __u64 id, __u64 result)
{
	struct trace_record8 *r = bpf_map_lookup_elem(&trace_open, &id);

	/* Not ours: the function was entered from elsewhere. */
	if (!r || r->e.function != fn)
		return;
	r->e.what = TRACE_WHOLE;
	r->e.result = result;
	r->e.duration = bpf_ktime_get_ns() - r->e.time;
	if ((!tracing.errors || trace_failed(result)) && trace_wanted(fn, &r->e)) {
		TRACE_CAPTURE_ALL(r, TRACE_CAPTURES, 1);
		if (ring_output(r, sizeof(*r)))
			TRACE_COUNT(full);
	}
	bpf_map_delete_elem(&trace_open, &id);
}

#define TRACE_RETURNED(e)                                       \
	do {                                                    \
		trace_head(&(e)->what, TRACE_RETURN, 0, tracing.target, 0, fn); \
		(e)->time = bpf_ktime_get_ns();                 \
		(e)->id = id;                                   \
		(e)->result = result;                           \
	} while (0)

struct trace_return {
	__u64 mark;
	__u8 what, context, target, captures;
	__u32 function;
	__u64 time, id;
	__u64 result;
};

/* With what the result points to. */
#define TRACE_EMIT_RETURN(n)                                                                   \
	do {                                                                                   \
		struct {                                                                       \
			struct trace_return e;                                                 \
			struct trace_capture capture[n];                                       \
		} *r = ring_reserve(sizeof(*r), &mark);                                        \
		__u64 none[TRACE_ARGS] = {};                                                   \
		__u32 at = 0;                                                                  \
		if (!r) {                                                                      \
			TRACE_COUNT(full);                                                     \
			return;                                                                \
		}                                                                              \
		TRACE_RETURNED(&r->e);                                                         \
		_Pragma("unroll") for (__u32 i = 0; i < TRACE_CAPTURES; i++)                   \
		{                                                                              \
			if (i >= tracing.captures || at >= n)                                  \
				break;                                                         \
			if (tracing.capture[i].from == TRACE_RESULT)                           \
				trace_capture(&r->capture[at++], i, none, result);             \
		}                                                                              \
		r->e.captures = at;                                                            \
		ring_submit(r, sizeof(*r), mark, false);                                                   \
	} while (0)

static __always_inline void trace_returned(__u32 fn, __u64 id, __u64 result)
{
	__u64 mark;

	if (tracing.late) {
		trace_late(fn, id, result);
		return;
	}
	if (tracing.paired) {
		__u64 *function = bpf_map_lookup_elem(&trace_paired, &id);

		if (!function || *function != fn)
			return;
		bpf_map_delete_elem(&trace_paired, &id);
	}
	if (tracing.results == 1) {
		TRACE_EMIT_RETURN(1);
	} else if (tracing.results && tracing.results <= 4) {
		TRACE_EMIT_RETURN(4);
	} else if (tracing.results) {
		TRACE_EMIT_RETURN(8);
	} else {
		struct trace_return *e = ring_reserve(sizeof(*e), &mark);

		if (!e) {
			TRACE_COUNT(full);
			return;
		}
		TRACE_RETURNED(e);
		ring_submit(e, sizeof(*e), mark, false);
	}
}

/*
 * The target that made this call, by the trampoline's frame; -1: none. w is its words from
 * the arguments on, of which those of other things are made nothing; see caller_word. The
 * arguments are left out where they are taken directly.
 */
static __always_inline int trace_caller(void *ctx, __u64 *w, __u64 *site)
{
	__u64 ip = spec.function ? spec.function : bpf_get_func_ip(ctx);
	__u32 fn = tracing.function, n = spec.args;

	if (n > MAX_ARGS || frame_read_from(ctx, w, tracing.direct ? n + 1 : 0)) {
		TRACE_COUNT(frame);
		return -1;
	}
	if (w[n + 2] - ip <= 16) {
		*site = w[n + 3];
	} else if (w[n + 1] - ip <= 16 || layout.jumps) {
		*site = w[n + 2];
	} else {
		TRACE_COUNT(frame);
		return -1;
	}
#pragma unroll
	for (__u32 i = 0; i < TRACE_ARGS; i++)
		if (i >= n && !tracing.direct)
			w[i] = 0;
	return target_of(*site);
}

/*
 * The targets' calls under way, by a hash of where their frames lie: the return of
 * anybody else's call is told by one look, and that of a target's by another. Only where
 * two frames share a slot, the caller is read from the frame.
 */
#define SLOT_BITS 12
struct trace_slot {
	__u64 last; /* frame and function of the last one */
	__u32 count, pad;
} trace_slots[1 << SLOT_BITS];

static __always_inline struct trace_slot *trace_slot(void *ctx)
{
	return &trace_slots[(scalar(ctx) * 0x9e3779b97f4a7c15ULL) >> (64 - SLOT_BITS)];
}

/* Kernel addresses are alike in their highest bits. */
#define TRACE_MARK(ctx) (scalar(ctx) ^ (__u64)(tracing.function + 1) << 48)

/*
 * Which function's entry program runs on each CPU, and one: an interrupt that calls the
 * same function meanwhile is not seen there, for the kernel runs no program twice. Its
 * return is. One program does not leave its CPU, and leaves this as it found it.
 */
__u32 trace_busy[MAX_CPUS];

SEC("fentry/trace_entry")
int trace_entry(void *ctx)
{
	struct trace_slot *slot = trace_slot(ctx);
	__u32 *busy = &trace_busy[bpf_get_smp_processor_id() & (MAX_CPUS - 1)], before = *busy;
	__u64 w[FRAME_WORDS], site;
	int t;

	*(volatile __u32 *)busy = tracing.function + 1;
	t = trace_caller(ctx, w, &site);
	if (t >= 0 && trace_call(tracing.function, (__u64)ctx, t, site, w, ctx)) {
		__sync_fetch_and_add(&slot->count, 1);
		slot->last = TRACE_MARK(ctx);
	}
	*(volatile __u32 *)busy = before;
	return 0;
}

static __always_inline __u64 trace_result(void *ctx)
{
	__u64 result = 0;

	if (layout.func_args)
		bpf_get_func_ret(ctx, &result);
	else if (spec.args <= MAX_ARGS)
		bpf_probe_read_kernel(&result, sizeof(result), ctx + 8 * spec.args);
	return result;
}

/* The entry was not seen: both halves are made up for now, and the time between is lost. */
static __noinline int trace_rescue(void *ctx)
{
	__u64 w[FRAME_WORDS], site;
	__u32 fn = tracing.function;
	int t = trace_caller(ctx, w, &site);

	TRACE_COUNT(checked);
	if (t >= 0 && trace_call(fn, (__u64)ctx, t, site, w, ctx))
		trace_returned(fn, (__u64)ctx, trace_result(ctx));
	return 0;
}

SEC("fexit/trace_exit")
int trace_exit(void *ctx)
{
	struct trace_slot *slot = trace_slot(ctx);
	__u64 w[FRAME_WORDS], site;

	if (!slot->count) {
		if (trace_busy[bpf_get_smp_processor_id() & (MAX_CPUS - 1)] != tracing.function + 1)
			return 0;
		return trace_rescue(ctx);
	}
	if (slot->last == TRACE_MARK(ctx))
		slot->last = 0;
	else if (trace_caller(ctx, w, &site) < 0)
		return 0;
	__sync_fetch_and_add(&slot->count, -1);
	trace_returned(tracing.function, (__u64)ctx, trace_result(ctx));
	return 0;
}

/* arch/x86/include/asm/ptrace.h, struct pt_regs of x86-64 */
#define REGS_AX 80
#define REGS_SP 152
#define REGS_IP 128
#define INT3_LEN 1
#define JUMP_LEN 5
#define CALL_LEN 5

#define REG(ctx, at) (*(__u64 *)((void *)(ctx) + (at)))

/* The argument registers, in order: di, si, dx, cx, r8, r9. */
static __always_inline void trace_registers(void *ctx, __u64 *args)
{
	args[0] = REG(ctx, 112);
	args[1] = REG(ctx, 104);
	args[2] = REG(ctx, 96);
	args[3] = REG(ctx, 88);
	args[4] = REG(ctx, 72);
	args[5] = REG(ctx, 64);
}

SEC("kprobe/trace_kprobe")
int trace_kprobe(void *ctx)
{
	__u64 args[TRACE_ARGS], sp = REG(ctx, REGS_SP), ret = 0;
	__u32 fn = tracing.function;
	int t;

	if (bpf_probe_read_kernel(&ret, sizeof(ret), (void *)sp)) {
		TRACE_COUNT(frame);
		return 0;
	}
	t = target_of(ret);
	if (tracing.callback) {
		/* From within the target it is an ordinary call. */
		if (t == tracing.target)
			return 0;
		if (t < 0)
			ret = 0;
		t = tracing.target;
	} else if (t < 0) {
		return 0;
	}
	trace_registers(ctx, args);
	trace_call(fn, sp, t, ret, args, NULL);
	return 0;
}

SEC("kprobe/trace_kretprobe")
int trace_kretprobe(void *ctx)
{
	/* The return address has been taken off by now. */
	trace_returned(tracing.function, REG(ctx, REGS_SP) - 8, REG(ctx, REGS_AX));
	return 0;
}

/* Those of 7.x take the context, those before nothing: it does no harm. */
extern __u64 *bpf_session_cookie(void *ctx) __ksym;
extern bool bpf_session_is_return(void *ctx) __ksym;

/*
 * Many functions with one program, entry and return: the number of the function is what it
 * was attached with. What an interrupt calls while any such program runs is not seen, and
 * counted by the kernel. Requires Linux 6.10.
 */
SEC("kprobe.session/trace_session")
int trace_session(void *ctx)
{
	__u64 args[TRACE_ARGS], sp = REG(ctx, REGS_SP), ret = 0, *id;
	__u32 fn = bpf_get_attach_cookie(ctx);
	int t;

	id = bpf_session_cookie(ctx);
	if (bpf_session_is_return(ctx)) {
		trace_returned(fn, *id, REG(ctx, REGS_AX));
		return 0;
	}
	if (bpf_probe_read_kernel(&ret, sizeof(ret), (void *)sp)) {
		TRACE_COUNT(frame);
		return 1;
	}
	t = target_of(ret);
	if (t < 0)
		return 1; /* the return is of no interest either */
	trace_registers(ctx, args);
	*id = sp;
	return !trace_call(fn, sp, t, ret, args, NULL);
}

/*
 * A jump of a target to what is traced, where somebody else may have called: the call
 * is seen here and nowhere else. It returns to that caller, with the jumping function's
 * result.
 */
SEC("kprobe/trace_jump")
int trace_jump(void *ctx)
{
	__u64 args[TRACE_ARGS], sp = REG(ctx, REGS_SP), ret = 0;

	bpf_probe_read_kernel(&ret, sizeof(ret), (void *)sp);
	if (target_of(ret) >= 0 && !tracing.unprobed)
		return 0; /* the callee's own probe finds the caller */
	trace_registers(ctx, args);
	trace_call(tracing.function, 0, tracing.target, REG(ctx, REGS_IP) - INT3_LEN + JUMP_LEN, args, NULL);
	return 0;
}

/*
 * A call of the target to what can't be probed itself (compiled without a place for the
 * tracer, as lib/ is, or written in assembler): seen at the call, and at the
 * instruction behind it.
 */
SEC("kprobe/trace_site_call")
int trace_site_call(void *ctx)
{
	__u64 args[TRACE_ARGS];

	trace_registers(ctx, args);
	trace_call(tracing.function, REG(ctx, REGS_SP) - 8, tracing.target, REG(ctx, REGS_IP) - INT3_LEN + CALL_LEN, args, NULL);
	return 0;
}

SEC("kprobe/trace_site_return")
int trace_site_return(void *ctx)
{
	trace_returned(tracing.function, REG(ctx, REGS_SP) - 8, REG(ctx, REGS_AX));
	return 0;
}

static __always_inline int trace_life(__u8 what, __u32 t)
{
	__u64 mark;
	struct trace_event *e = ring_reserve(sizeof(*e), &mark);
	__u32 fn = tracing.function;

	if (!e) {
		TRACE_COUNT(full);
		return 0;
	}
	trace_describe(fn, e, 0, t, 0);
	__builtin_memset(e->args, 0, sizeof(e->args));
	e->what = what;
	e->captures = 0;
	e->load = t < MAX_TARGETS ? loaded[t].load : 0;
	ring_submit(e, sizeof(*e), mark, true);
	return 0;
}
