/* SPDX-License-Identifier: GPL-2.0 */
/* Programs that do nothing but ask a filter, which the tests put in the place of
 * filter(). */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

struct filter_in {
	__u64 args[6];
	__u64 result;
	__u64 duration;
	__u32 pid, tid;
	__u32 cpu, context;
	char comm[16];
};

struct call {
	struct filter_in in;
	__u32 function;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct call);
} calls SEC(".maps");

/* That its result comes from assembly keeps the compiler from taking it for known. */
__noinline int filter(struct filter_in *in, __u32 function)
{
	int result;

	asm volatile("%0 = 0" : "=r"(result) : "r"(in), "r"(function));
	return result;
}

SEC("socket")
int from_map(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct call *call = bpf_map_lookup_elem(&calls, &zero);

	if (!call)
		return -1;
	return filter(&call->in, call->function);
}

/* As where what is known of a call has been put together on the stack. */
SEC("socket")
int from_stack(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct call *call = bpf_map_lookup_elem(&calls, &zero);
	struct filter_in in;
	int matches;

	if (!call)
		return -1;
	in = call->in;
	matches = filter(&in, call->function);
	/* The arguments are still needed. */
	return matches + (in.args[5] != call->in.args[5]) * 2;
}

char LICENSE[] SEC("license") = "GPL";
