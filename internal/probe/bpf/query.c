/* SPDX-License-Identifier: GPL-2.0 */
/* Questions that user space asks of the kernel, answered at once. */
#include "regs.h"

/* A symbol, and the word at an offset from it. */
struct query {
	char name[64]; /* empty: address is given */
	__u64 offset;
	__u64 address; /* 0: no such symbol */
	__u64 value;
	char text[128]; /* "name+0x0/0xsize [module]" */
} __attribute__((aligned(8)));

/* Spares reading all of /proc/kallsyms. Requires Linux 5.16. */
SEC("syscall")
int find_symbol(struct query *q)
{
	char name[64] __attribute__((aligned(8))) = {};
	char text[sizeof(q->text)] __attribute__((aligned(8))) = {};
	__u64 address = q->address, value = 0;

	bpf_probe_read_kernel_str(name, sizeof(name), q->name);
	if (name[0]) {
		address = 0;
		if (bpf_kallsyms_lookup_name(name, sizeof(name), 0, &address))
			return 1;
		BPF_SNPRINTF(text, sizeof(text), "%pS", (void *)address);
	} else {
		/* A return address: the call before it is meant. */
		BPF_SNPRINTF(text, sizeof(text), "%pB", (void *)address);
	}
	q->address = address;
	bpf_probe_read_kernel(&value, sizeof(value), (void *)(address + q->offset));
	q->value = value;
	__builtin_memcpy(q->text, text, sizeof(text));
	return 0;
}

/* What the programs below have found. */
#define MAX_ANSWER 255
struct answer {
	__u64 n; /* words that were written, or bytes that were read; or would be, were there room */
	__u64 word[MAX_ANSWER];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer);
} answer SEC(".maps");

static __always_inline struct answer *answering(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&answer, &zero);
}

/* The memory at an address, up to a number of bytes. Requires Linux 5.10. */
SEC("raw_tp/peek")
int peek(struct bpf_raw_tracepoint_args *ctx)
{
	struct answer *a = answering();
	__u32 n = ctx->args[1];

	if (!a || n > sizeof(a->word))
		return 1;
	a->n = n;
	if (bpf_probe_read_kernel(a->word, n, (void *)ctx->args[0]))
		a->n = 0;
	return 0;
}

/* The process whose doings are looked at. */
const volatile __u32 asker = 0;

/* An argument of each of the asker's calls, in turn. */
SEC("kprobe/argument")
int argument(void *ctx)
{
	struct answer *a = answering();
	__u64 w[MAX_ARGS];

	if (!a || bpf_get_current_pid_tgid() >> 32 != asker)
		return 0;
	regs_arguments(ctx, w);
	if (a->n < MAX_ANSWER && spec.address < MAX_ARGS)
		a->word[a->n] = w[spec.address] | spec.id; /* whose it is: what is looked at is aligned */
	a->n++;
	return 0;
}

/*
 * At the exit of a function that is called from one place alone: the word that is
 * its return address if the trampoline was entered by a jump; 0 if it was not.
 */
SEC("fexit/calibrate")
int calibrate(void *ctx)
{
	__u64 w[FRAME_WORDS], ip = bpf_get_func_ip(ctx);
	struct answer *a = answering();
	__u32 n = spec.args;

	if (!a || n > MAX_ARGS || frame_read(ctx, w))
		return 0;
	a->n = 1;
	a->word[0] = w[n + 2] - ip > 16 && w[n + 1] - ip > 16 ? w[n + 2] : 0;
	return 0;
}
