/* SPDX-License-Identifier: GPL-2.0 */
/* What "kedr clear" has forgotten; internal/probe/clear.go does the work. */
#ifndef KEDR_CLEAR_H
#define KEDR_CLEAR_H

#include "cell.h"

/* Whether a load was cleared: what was done in its name is nobody's any more. */
static __always_inline bool cleared(__u32 id)
{
	__u32 i = id - 1;
	struct load *ld;

	if (!*(volatile __u32 *)&clears)
		return false;
	ld = bpf_map_lookup_elem(&loads, &i);
	return !ld || ld->state == LOAD_NONE;
}

/* Whoever is asked for a forgotten object owns its address now, and may remove it. */
static __always_inline bool forgotten(__u64 key, struct object *o)
{
	if (!cleared(o->load))
		return false;
	if (layout.cells ? take_cell(key, o) && empty_cell(o) : !bpf_map_delete_elem(&objects, &key))
		__sync_fetch_and_add(filter_slot(key), -1);
	return true;
}

#endif
