/* SPDX-License-Identifier: GPL-2.0 */
/* Questions that user space asks of the kernel, answered at once. */
#include "context.h"

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

/* What peek and calibrate have found. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} answer SEC(".maps");

/* The word at an address, on kernels without the above. Requires Linux 5.10. */
SEC("raw_tp/peek")
int peek(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0;
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)ctx->args[0]);
	bpf_map_update_elem(&answer, &zero, &value, BPF_ANY);
	return 0;
}

/*
 * At the exit of a function that is called from one place alone: the word that is
 * its return address if the trampoline was entered by a jump; 0 if it was not.
 */
SEC("fexit/calibrate")
int calibrate(void *ctx)
{
	__u64 w[FRAME_WORDS], ip = bpf_get_func_ip(ctx), value = 0;
	__u32 zero = 0, n = spec.args;

	if (n > MAX_ARGS || frame_read(ctx, w))
		return 0;
	if (w[n + 2] - ip > 16 && w[n + 1] - ip > 16)
		value = w[n + 2];
	bpf_map_update_elem(&answer, &zero, &value, BPF_ANY);
	return 0;
}
