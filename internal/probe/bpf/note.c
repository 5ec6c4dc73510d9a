/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Jumps of a target to what is probed, in functions that the kernel may call: the
 * probed function returns to the kernel then, and nothing but the jump itself tells
 * who got there. A kprobe sits on each. spec.address is the target.
 */
#include "account.h"
#include "regs.h"

#define INT3_LEN 1 /* the register is behind the breakpoint, also where there is none */
#define JUMP_LEN 5

SEC("kprobe/note")
int note_jump(void *ctx)
{
	__u64 sp = regs_sp(ctx), key = sp >> layout.stack_shift, ret;
	struct notes *ns, none = {};
	__u32 t = spec.address, n, dropped;

	if (t >= MAX_TARGETS)
		return 0;
	ret = word_at(sp);
	/* A caller in the target is found without. */
	if (!loaded[t].load || target_of(ret) == t)
		return 0;
	ns = bpf_map_lookup_elem(&notes, &key);
	if (!ns) {
		bpf_map_update_elem(&notes, &key, &none, BPF_NOEXIST);
		ns = bpf_map_lookup_elem(&notes, &key);
	}
	if (!ns) {
		lose(LOST_NOTES);
		return 0;
	}
	/* Notes from further down have returned without being found. */
	n = 0;
	for (__u32 i = 0; i < MAX_NOTES; i++) {
		if (i >= ns->n || ns->at[i].sp <= sp)
			break;
		n = i + 1;
	}
	if (n >= MAX_NOTES) {
		lose(LOST_NOTES);
		return 0;
	}
	dropped = ns->n - n;
	ns->at[n].sp = sp;
	ns->at[n].ret = ret;
	ns->at[n].site = regs_ip(ctx) - INT3_LEN + JUMP_LEN;
	ns->at[n].target = t;
	ns->n = n + 1;
	__sync_fetch_and_add(&noted, 1 - (__u64)dropped);
	return 0;
}
