/* SPDX-License-Identifier: GPL-2.0 */
/* What a kprobe is given: the registers at the place where it sits. */
#ifndef KEDR_REGS_H
#define KEDR_REGS_H

#include "context.h"

/*
 * struct pt_regs (arch/x86/include/asm/ptrace.h), of 64 and of 32 bits. In assembler: one
 * load at a fixed offset is all that the verifier allows, and the compiler would make
 * one at a variable offset of two.
 */
#define REG_WIDE(ctx, at)                                                                    \
	({                                                                                   \
		__u64 v_;                                                                    \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(v_) : "r"(ctx), "i"(at));      \
		v_;                                                                          \
	})
#define REG_NARROW(ctx, at)                                                                  \
	({                                                                                   \
		__u64 v_;                                                                    \
		asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(v_) : "r"(ctx), "i"(at));      \
		v_;                                                                          \
	})
#define PT_REG(ctx, wide, narrow) (layout.word == 4 ? REG_NARROW(ctx, narrow) : REG_WIDE(ctx, wide))

#define regs_ip(ctx) PT_REG(ctx, 128, 48)
#define regs_sp(ctx) PT_REG(ctx, 152, 60)
#define regs_result(ctx) PT_REG(ctx, 80, 24)

/*
 * The first words of a function's arguments, when it is entered. The kernel is compiled
 * with -mregparm=3 for 32 bits: three in registers, the others above the return address.
 */
static __always_inline void regs_arguments(void *ctx, __u64 *w)
{
	if (layout.word == 4) {
		__u32 more[MAX_ARGS - 3] = {};

		w[0] = REG_NARROW(ctx, 24); /* ax */
		w[1] = REG_NARROW(ctx, 8); /* dx */
		w[2] = REG_NARROW(ctx, 4); /* cx */
		if (spec.args > 3)
			bpf_probe_read_kernel(more, sizeof(more), (void *)(regs_sp(ctx) + 4));
#pragma unroll
		for (__u32 i = 3; i < MAX_ARGS; i++)
			w[i] = more[i - 3];
		return;
	}
	w[0] = REG_WIDE(ctx, 112); /* di */
	w[1] = REG_WIDE(ctx, 104); /* si */
	w[2] = REG_WIDE(ctx, 96); /* dx */
	w[3] = REG_WIDE(ctx, 88); /* cx */
	w[4] = REG_WIDE(ctx, 72); /* r8 */
	w[5] = REG_WIDE(ctx, 64); /* r9 */
}

#endif
