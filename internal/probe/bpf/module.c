/* SPDX-License-Identifier: GPL-2.0 */
/* The life of the targets: when their text is there, and where. */
#include "account.h"
#include "regs.h"

static __always_inline __u32 half(__u64 base, __u32 offset)
{
	__u32 v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), (void *)(base + offset));
	return v;
}

/* Both are padded with zeros. */
static __always_inline bool same_name(const char *a, const char *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;
	__u64 differ = 0;

#pragma unroll
	for (int i = 0; i < NAME_LEN / 8; i++)
		differ |= x[i] ^ y[i];
	return !differ;
}

/* Which target is this module by its name; -1: none. */
static __always_inline int target_named(__u64 mod)
{
	char name[NAME_LEN] __attribute__((aligned(8))) = {};

	bpf_probe_read_kernel_str(name, sizeof(name), (void *)(mod + layout.module_name));
	for (__u32 t = 0; t < MAX_TARGETS; t++) {
		struct target *tg;
		__u32 key = t; /* a loop counter in memory is one the verifier can't follow */

		if (t >= spec.targets)
			break;
		tg = bpf_map_lookup_elem(&targets, &key);
		if (tg && same_name(name, tg->name))
			return t;
	}
	return -1;
}

/*
 * Where the sections are: their symbols' addresses in the kernel's copy of the
 * symbol table, which is whole until init has run. Another build of the module
 * has another table; then nothing is written and nothing will be named wrongly.
 */
static __always_inline void locate(struct load *ld, struct target *tg, __u64 mod)
{
	__u64 kallsyms = word_at(mod + layout.kallsyms);
	__u64 symtab = word_at(kallsyms + layout.symtab);

	if (half(kallsyms, layout.num_symtab) != tg->symbol_count)
		return;
	for (__u32 i = 0; i < MAX_SECTIONS; i++) {
		if (i >= layout.sections || i >= tg->sections)
			break;
		ld->section[i] = word_at(symtab + (__u64)tg->section[i].symbol * layout.sym_size +
					 layout.sym_value) - tg->section[i].value;
	}
}

static __always_inline void coming(__u64 mod)
{
	int t = target_named(mod);
	struct target *tg;
	struct load *ld;
	__u32 i, ti;

	if (t < 0 || t >= MAX_TARGETS)
		return;
	if (loaded[t].module == mod && loaded[t].load)
		return; /* seen already, at the earlier of the two places */
	ti = t;
	tg = bpf_map_lookup_elem(&targets, &ti);
	i = load_count;
	ld = bpf_map_lookup_elem(&loads, &i);
	if (!ld || !tg) {
		lose(LOST_LOADS_FULL);
		return;
	}
	/* Loads of modules with one name can't overlap, others hardly do. */
	__sync_fetch_and_add(&load_count, 1);
	ld->target = t;
	ld->core = word_at(mod + layout.core_base);
	ld->init = word_at(mod + layout.init_base);
	ld->loaded = bpf_ktime_get_boot_ns();
	ld->state = LOAD_COMING;
	locate(ld, tg, mod);

	loaded[t].load = i + 1;
	loaded[t].module = mod;
	ranges[2 * t].size = 0;
	ranges[2 * t].base = ld->core;
	ranges[2 * t].size = half(mod, layout.core_size);
	ranges[2 * t + 1].size = 0;
	ranges[2 * t + 1].base = ld->init;
	ranges[2 * t + 1].size = ld->init ? half(mod, layout.init_size) : 0;
	if (tracing.life)
		trace_life(TRACE_LOADED, t);
}

static __always_inline int target_loaded(__u64 mod)
{
	for (__u32 t = 0; t < MAX_TARGETS; t++) {
		if (t >= spec.targets)
			break;
		if (loaded[t].module == mod)
			return t;
	}
	return -1;
}

/* init has returned: its text is about to be freed, and to be somebody else's. */
static __always_inline void live(__u64 mod)
{
	int t = target_loaded(mod);
	struct load *ld;

	if (t < 0 || t >= MAX_TARGETS)
		return;
	ranges[2 * t + 1].size = 0;
	ld = load_of(loaded[t].load);
	if (ld && ld->state == LOAD_COMING)
		ld->state = LOAD_LIVE;
}

static __always_inline void going(__u64 mod)
{
	int t = target_loaded(mod);
	struct load *ld;

	if (t < 0 || t >= MAX_TARGETS)
		return;
	ranges[2 * t].size = 0;
	ranges[2 * t + 1].size = 0;
	ld = load_of(loaded[t].load);
	if (ld) {
		ld->unloaded = bpf_ktime_get_boot_ns();
		ld->state = LOAD_GONE;
	}
	if (tracing.life)
		trace_life(TRACE_UNLOADED, t);
	loaded[t].module = 0;
	loaded[t].load = 0;
}

/* After relocation and all notifiers, just before init (kernel/module/main.c). */
SEC("raw_tp/module_load")
int module_load(struct bpf_raw_tracepoint_args *ctx)
{
	coming(ctx->args[0]);
	return 0;
}

/* After exit, or after an init that failed; before the memory is freed. */
SEC("raw_tp/module_free")
int module_free(struct bpf_raw_tracepoint_args *ctx)
{
	going(ctx->args[0]);
	return 0;
}

/*
 * module_finalize(hdr, sechdrs, mod) runs before the module's parameters are
 * set, whose callbacks are code of the module; module_arch_cleanup(mod) when
 * that fails, where module_free never fires; module_arch_freeing_init(mod) when
 * the init area is about to be freed. spec.address tells which argument the
 * module is. All are entered by fentry: an exit program would leave its
 * trampoline in the call stacks of init.
 */
#define ON_MODULE(name, what)                                     \
	SEC("fentry/" #name)                                      \
	int name(void *ctx)                                       \
	{                                                         \
		__u64 w[FRAME_WORDS];                             \
		if (spec.address < MAX_ARGS && !frame_read(ctx, w)) \
			what(w[spec.address]);                    \
		return 0;                                         \
	}                                                         \
	SEC("kprobe/" #name)                                      \
	int name##_kprobe(void *ctx)                              \
	{                                                         \
		__u64 w[MAX_ARGS];                                \
		ran_at(0);                                        \
		if (spec.address < MAX_ARGS) {                    \
			regs_arguments(ctx, w);                   \
			what(w[spec.address]);                    \
		}                                                 \
		return 0;                                         \
	}

ON_MODULE(module_coming, coming)
ON_MODULE(module_going, going)
ON_MODULE(module_live, live)
