/* SPDX-License-Identifier: GPL-2.0 */
/* Where a program runs: task, interrupt, and the room that it works in. */
#ifndef KEDR_CONTEXT_H
#define KEDR_CONTEXT_H

#include "known.h"

/*
 * In its place the loader puts the kernel's per-CPU variable that has the preemption
 * counter, by its type: then it is read by one instruction, where a helper takes a hundred.
 */
#define PERCPU_VARIABLE "0x6b65647270657263"

/* This CPU's preemption counter; 0: unknown. */
static __always_inline __u32 preemption(void)
{
	__u32 cpu, count = 0;

	if (layout.percpu_count != (__u32)-1) {
		void *variable;

		asm volatile("%0 = " PERCPU_VARIABLE " ll" : "=r"(variable));
		variable = bpf_this_cpu_ptr(variable);
		return *(volatile __u32 *)(variable + layout.percpu_count);
	}
	cpu = bpf_get_smp_processor_id();
	if (cpu < MAX_CPUS && preempt_count[cpu])
		bpf_probe_read_kernel(&count, sizeof(count), (void *)preempt_count[cpu]);
	return count;
}

/* The task's name. By a typed pointer, which 5.11 has, it is two loads; else a copy. */
static __always_inline void current_comm(char *comm)
{
	if (layout.task_comm) {
		volatile __u64 *name = (void *)bpf_get_current_task_btf() + layout.task_comm;

		((__u64 *)comm)[0] = name[0];
		((__u64 *)comm)[1] = name[1];
	} else {
		bpf_get_current_comm(comm, COMM_LEN);
	}
}

/* The task's number, as users know it. */
static __always_inline __u32 current_pid(void)
{
	if (layout.task_pid)
		return *(volatile __u32 *)((void *)bpf_get_current_task_btf() + layout.task_pid);
	return bpf_get_current_pid_tgid();
}

static __always_inline bool in_irq(void)
{
	return preemption() & layout.irq_mask;
}

const volatile __u32 depths = 1; /* how many rooms there are */

/*
 * A call: where it returns to, and the address behind the instruction that made
 * it. These are two only where the target has jumped to the function.
 */
struct caller {
	__u64 ret, site;
	__u32 slot; /* where the return address lies, from ctx on; 0: unknown */
	int t; /* the target; -1: none */
	__u64 sp; /* the same, for a kprobe: its address; 0: unknown */
	__u64 stack; /* of a call that was unwound when it began */
	__u32 slot_then; /* of that */
	bool unwound;
	bool irq; /* it was made in an interrupt; set where it is of interest */
	bool apart; /* ctx came by way of memory: nothing can be reckoned with it */
};

static __always_inline struct scratch *enter(void)
{
	__u32 zero = 0, depth;
	struct scratch *first = bpf_map_lookup_elem(&scratch, &zero), *s;

	if (!first || depths == 1)
		return first;
	depth = first->depth;
	if (depth >= depths) {
		lose(LOST_NESTED);
		return NULL;
	}
	s = first;
	if (depth)
		s = bpf_map_lookup_elem(&scratch, &depth);
	if (s) {
		s->room = depth;
		first->depth = depth + 1;
	}
	return s;
}

static __always_inline void leave(void)
{
	__u32 zero = 0;
	struct scratch *first;

	if (depths == 1)
		return;
	first = bpf_map_lookup_elem(&scratch, &zero);
	if (first && first->depth)
		first->depth--;
}

#endif
