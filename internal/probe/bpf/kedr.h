/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs share with each other and, as kedr_bpfel.go has it, with the loader.
 *
 * There is no vmlinux.h and there are no CO-RE relocations here: what differs
 * between kernels comes in as constants that the loader works out (from BTF
 * where there is some), so that the same object serves kernels without BTF.
 */
#ifndef KEDR_H
#define KEDR_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif
#define barrier() asm volatile("" ::: "memory")

#define MAX_TARGETS 16
#define MAX_SECTIONS 16
#define MAX_LOADS 1024
#define MAX_PROBES 256
#define MAX_FRAMES 64
#define MAX_ABOVE 24 /* frames of an allocator and of ours, above a call */
#define FULL_FRAMES (MAX_FRAMES + MAX_ABOVE)
#define MAX_STRING 4096
#define MAX_BULK 65536
#define MAX_BULK_SHORT 128 /* before 5.17 */
#define MAX_THROUGH 32
#define MAX_COUNTED 8 /* times that one address may be obtained; low bits of a key */
#define NAME_LEN 56 /* MODULE_NAME_LEN on 64-bit */
#define COMM_LEN 16
#define FILTER_BITS 16
#define MAX_CPUS 1024
#define LED_BITS 9
#define EVENT_BITS 10
#define EVENT_WAYS 4

/* Why an event was not accounted for; named in internal/probe/read.go. */
enum lost_reason {
	LOST_OBJECTS_FULL,
	LOST_OBJECTS_BUSY,
	LOST_STACKS_FULL,
	LOST_FRAME,
	LOST_BULK,
	LOST_NESTED,
	LOST_LOADS_FULL,
	LOST_WRONG_FULL,
	LOST_COUNTED,
	LOST_NOTES,
	LOST_OPEN,
	LOST_RETURN,
	LOST_MERGED,
	LOST_MAX,
};

/* Where an address comes from. */
enum from {
	FROM_RETURN,
	FROM_ARG,
	FROM_ARRAY, /* pointers in an array argument, as many as another says */
	FROM_RCU_HEAD, /* kvfree_call_rcu(head, offset or function) of before 6.4 */
};

/* What an address names. Page objects are kept by their struct page. */
enum space {
	SPACE_PLAIN,
	SPACE_PAGE, /* a struct page */
	SPACE_PAGE_VIRT, /* the linear address of a page */
};

/* When a function has obtained something. */
enum succeeds {
	SUCCEEDS_ALWAYS,
	SUCCEEDS_ZERO, /* when it returns 0 */
	SUCCEEDS_NONZERO,
};

/* What is wrong with a release. */
enum wrong_release {
	WRONG_UNALLOCATED, /* of what no target had obtained */
	WRONG_DOUBLE, /* of what a target had obtained, and was released already */
	WRONG_MISMATCHED, /* by a function, or to an owner, of other objects */
};

enum size_from {
	SIZE_UNKNOWN,
	SIZE_ARG, /* a * b, b being 1 where the function has none */
	SIZE_ORDER, /* PAGE_SIZE << a */
	SIZE_FIELD, /* a 32-bit field behind the pointer a */
	SIZE_STRING, /* of the string returned, its end included */
	SIZE_PAGES, /* PAGE_SIZE * a */
};

#define NO_ARG 0xff
#define VMALLOC_SPAN (1ULL << 44) /* less than lies between it and what comes next */
#define KIND_ORDERED (1U << 31) /* among the kinds: whole pages, a power of two of them */

struct range {
	__u64 base, size;
};

/* What one program does; constant for the verifier. */
struct probe_spec {
	__u32 id; /* of the probe */
	__u32 targets; /* how many there are */
	__u64 function; /* its address, 0: ask the kernel */
	__u8 args; /* number of 64-bit argument slots */
	__u8 from;
	__u8 space;
	__u8 address; /* argument with the address, or the array */
	__u8 count; /* argument with the array's length; NO_ARG: the result */
	__u8 size_from;
	__u8 size_a;
	__u8 size_b;
	__u32 size_offset;
	__u8 call_site; /* argument of a tracepoint; NO_ARG where it has none */
	__u8 skip_if; /* not an object when the result is this argument */
	__u8 replaces; /* argument whose object this call takes over (realloc) */
	__u8 tracepoint;
	__u8 twin; /* the first or the second of two programs for one event; 0: there is one only */
	__u8 throughs; /* how many of the ranges are used */
	__u8 check_only; /* the release itself is seen elsewhere */
	__u8 tag; /* distinguishes objects that share an address; 0: memory */
	__u8 counted; /* one address may be obtained several times */
	__u8 foreign; /* others' objects may be released: that is nothing wrong */
	__u8 succeeds;
	__u8 owner; /* argument that the object has to go back to */
	__u8 last; /* released when the 32 bits at last_offset behind this argument are 1 */
	__u8 list; /* argument with a list instead of the array */
	__u8 fills; /* entries of the array that were there before are passed over */
	__u8 compare_size; /* a release names the size, and it has to be the object's */
	__u8 narrow; /* arguments of 32 bits, a bit each: the rest of their slot is anything */
	__u8 pointer; /* the address is at pointer_offset behind that argument */
	__u8 tails; /* some calls of the target are jumps: look for their notes */
	__u32 kinds; /* what is handed out, a bit a kind; what is taken back */
	__u32 last_offset;
	__u32 inside; /* where in its block an object lies */
	__u32 pointer_offset;
	__u32 link; /* where in an object of a list its link is */
	__u64 through_span; /* from the first of those below to the end of the last */
	struct range through[MAX_THROUGH]; /* functions whose caller is meant */
};

/* Where the running kernel keeps things. */
struct kernel_layout {
	__u32 module_name;
	__u32 core_base, core_size; /* executable part */
	__u32 init_base, init_size;
	__u32 kallsyms, symtab, num_symtab;
	__u32 sym_size, sym_value;
	__u32 struct_page;
	__u32 irq_mask; /* of the preemption counter: in hard or soft interrupt, or NMI */
	__u32 jumps; /* trampolines may be entered by a jump, and have been calibrated */
	__u32 percpu_count; /* where the preemption counter is in PERCPU_VARIABLE; -1: no such */
	__u32 task_comm, task_pid; /* 0: there is no typed pointer to the task */
	__u32 func_args; /* bpf_get_func_arg may be called */
	__u32 frame_type; /* of struct pt_regs, for bpf_rdonly_cast; 0: there is no such */
	__u32 word; /* bytes of a long and of a pointer */
	__u32 frame_pointers; /* by which stacks are unwound */
	__u32 stack_shift; /* of THREAD_SIZE */
	__u32 loops; /* bpf_loop may be called */
	__u32 sections; /* of code, that a target has at most */
	__u32 cells; /* how many there are for objects; 0: they are in the hash */
	__u32 max_objects; /* that may be in cells */
	__u32 max_slots; /* that are given out by number; 0: all are spare ones to begin with */
	__u64 vmalloc_base;
};

struct target {
	char name[NAME_LEN] __attribute__((aligned(8)));
	__u32 sections;
	__u32 symbol_count;
	__u32 first_sym; /* in the syms map */
	__u32 syms;
	struct {
		__u32 symbol; /* index in the module's symbol table */
		__u32 size;
		__u64 value; /* of that symbol within its section */
		__u32 elsewhere; /* first word of its bits in that map */
		__u32 pad;
	} section[MAX_SECTIONS];
};

enum load_state { LOAD_NONE, LOAD_COMING, LOAD_LIVE, LOAD_GONE };

struct load {
	__u32 target;
	__u32 state;
	__u64 core, init;
	__u64 loaded, unloaded; /* ns since boot */
	__u64 allocations, allocated_bytes, frees, wrong_frees, live, mismatched, live_bytes;
	__u64 section[MAX_SECTIONS]; /* all 0: not the file that we know */
};

struct object {
	__u64 address; /* as its users know it */
	__u64 size;
	__u64 call_site;
	__u64 time;
	__u64 owner; /* what it was taken from; 0: unknown */
	__u32 load;
	__u32 pid;
	__u32 kinds; /* whose releases take it back, a bit a kind */
	__u32 slot; /* of its stack's tally; 0: there was no room */
	char comm[COMM_LEN] __attribute__((aligned(8)));
	__u16 probe;
	__u8 irq;
	__u8 inner; /* seen inside a function that may be watched too */
	__u32 pad;
};

/* Who did something, and where. */
struct party {
	__u64 stack; /* 0: there was no room for it */
	__u64 call_site;
	__u32 pid;
	__u8 irq;
	__u8 pad[3];
	char comm[COMM_LEN];
};

/* The same of something that mostly nobody will ask for: the stack by the slot of its tally. */
struct act {
	__u64 call_site;
	__u32 slot; /* 0: there was no room for it */
	__u32 pid;
	char comm[COMM_LEN] __attribute__((aligned(8)));
	__u8 irq;
	__u8 pad[7];
};

/* The last release of an object with this key. */
struct freed {
	__u64 key, turn; /* of the release among all of them */
	__u64 size;
	__u32 load;
	__u16 probe; /* that handed it out */
	__u16 pad;
	struct act obtained, released;
	__u64 end; /* turn again: it was written whole */
};

struct wrong {
	__u64 address;
	__u64 time;
	__u64 count;
	__u64 size; /* of the object, where it is known */
	__u32 load;
	__u16 probe;
	__u8 what;
	__u8 known; /* obtained and released say more */
	__u16 object_probe;
	__u16 pad1;
	__u32 pad;
	struct party self, obtained, released;
};

enum stack_role { STACK_OBTAINED, STACK_RELEASED, STACK_WRONG /* and what is wrong */ };

struct stack {
	__u32 load;
	__u32 frames;
	__u32 cut;
	__u32 role;
	__u32 needed; /* by a report, though nothing of it is outstanding */
	__u32 slot; /* of its tally */
	__u64 site; /* a jump of the target, which has left no frame; 0: none */
	__u64 printed; /* the last reading of a file that showed it */
	__u64 frame[MAX_FRAMES];
};

/* What was obtained on a stack. Apart from it, for an index finds it at once. */
struct tally {
	__u64 id; /* of the stack */
	__u64 live;
	__u64 total, total_bytes;
};

/* Which probes a direct call of the target leads to, a bit a probe. */
struct site {
	__u64 probes[MAX_PROBES / 64];
};

/* An event that one of two programs has handled and the other has not seen yet. */
struct event {
	__u64 key; /* where its arguments are, on the stack, the probe, and which program; 0: none */
	__u64 addr;
};

struct sym {
	__u32 section, offset, size;
	char name[52];
};

/* A target that is loaded now. */
struct loaded {
	__u64 module;
	__u32 load;
	__u32 pad;
};

const volatile struct probe_spec spec = {};
const volatile struct kernel_layout layout = {};

/* The text of the loaded targets: slot 2t core, 2t+1 init; size 0: none. */
struct range ranges[2 * MAX_TARGETS];
struct loaded loaded[MAX_TARGETS];
__u32 load_count;
__u64 lost[MAX_PROBES * LOST_MAX];
__u64 rescued[MAX_PROBES]; /* what the second program has handled, less what the first has left to it */
__u64 ran[2 * MAX_PROBES]; /* how often a kprobe's program has run: at the entry, at the return */
__u64 vmemmap_base, page_offset_base;
struct event events[EVENT_WAYS << EVENT_BITS];
__u64 crowded; /* notes that are not in the first of their ways */
__u8 paired[MAX_PROBES]; /* the second program has been there */
/*
 * Where calls lead (call_leads), to be found without a look-up: the call, the load and the
 * probe, and the answer in the lowest two bits. A slot a hash value.
 */
__u64 led[1 << LED_BITS];
__u64 noted; /* jumps that were noted: 0 spares a lookup */
/*
 * Each CPU's preemption counter, by address (arch/x86/include/asm/preempt.h: a
 * variable of its own up to 6.1 and from 6.15, in pcpu_hot between); 0: unknown.
 */
__u64 preempt_count[MAX_CPUS];
/*
 * How many objects have an address that hashes to a slot. Zero spares all
 * other users of the allocator a lookup in the hash.
 */
__u32 filter[1 << FILTER_BITS];
__u64 turns; /* releases so far */
__u32 slots; /* that have been given out so far, but for spare ones */
__u32 spares;
__u32 held; /* how many objects are in cells */
__u32 clears; /* there have been some: loads may be cleared */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, __u64);
	__type(value, struct object);
} objects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct stack);
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384 + 1);
	__type(key, __u32); /* slots count from 1 */
	__type(value, struct tally);
} tallies SEC(".maps");

/* Slots that nobody has any more. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 16384);
	__type(value, __u32);
} spare_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); /* a stack */
	__type(value, struct wrong);
} wrongs SEC(".maps");

/*
 * What was released lately, to tell a second release: a slot a hash value, the next
 * one in it takes the place of the last.
 */
#define FREED_BITS 13
struct freed_slots {
	struct freed slot[1 << FREED_BITS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct freed_slots);
} freed SEC(".maps");

/* A jump of a target to what is probed, and not arrived there yet. */
struct note {
	__u64 sp; /* where the return address lies */
	__u64 ret;
	__u64 site; /* the address behind the jump */
	__u32 target;
	__u32 pad;
};

/*
 * The notes of one stack, by the address of its THREAD_SIZE, outermost first: a callback
 * may be entered from within an allocation.
 */
#define MAX_NOTES 4
struct notes {
	__u32 n;
	__u32 pad;
	struct note at[MAX_NOTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct notes);
} notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_LOADS);
	__type(key, __u32);
	__type(value, struct load);
} loads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TARGETS);
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sym);
} syms SEC(".maps");

/* By site_key: the target's direct calls that lead to a probed function. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct site);
} sites SEC(".maps");

/* A bit for each offset of a section: a direct call to something else ends here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} elsewhere SEC(".maps");

/* A call stack that can be told by comparing words (known.h). */
#define KNOWN_WORDS 48 /* of a stack, that are compared */
#define KNOWN_POINTERS 6 /* that point into it, likewise */
#define KNOWN_AT_ONCE 4 /* words: what they lack, they have twice */
#define KNOWN_COPY 4096 /* bytes from ctx on, in which they have to lie; a power of two */

struct known_word {
	__u64 value;
	__u64 at; /* bytes from ctx on */
};

struct known_way {
	/* 0: nothing yet; else how often it has been written, twice; odd: it is being written. */
	__u64 state;
	__u64 ret, tag, site; /* whose stack it is */
	__u64 slot; /* of its tally */
	__u32 words, pointers;
	__u64 span; /* bytes from ctx on, in which the words lie */
	struct known_word word[KNOWN_WORDS];
	struct known_word pointer[KNOWN_POINTERS]; /* the values count from ctx on, too */
};

/*
 * Room to work in, for each program apart. The kernel lets a program interrupt
 * another one on the same CPU; itself too before 5.12, and up to 6.0 on a
 * tracepoint: hence as many rooms as a CPU has contexts there, and depth says which.
 */
#define MAX_DEPTH 4
struct scratch {
	__u32 depth; /* of the first: how many are in use */
	__u32 room; /* which one this is */
	/* Of the call that is looked at: what functions are told of it that need no ctx. */
	struct {
		__u64 ret, site;
		__u64 at, tag; /* to learn its stack by; at 0: it is not learned */
		int t;
		__u32 irq;
		__u32 slot; /* of the stack, once it is found or stored; 0: it is not */
		__u32 bad; /* a release: what is released is not what it should be */
		__u64 address, key, times;
	} call;
	struct stack stack;
	struct object object;
	struct wrong wrong;
	union {
		char string[MAX_STRING];
		__u64 copy[KNOWN_COPY / 8]; /* of the stack, to be compared */
		struct {
			__u64 full[FULL_FRAMES]; /* all frames, those above the call too */
			__u32 full_frames, pad;
			/*
			 * Of the stack that is learned. Here, not in what the loop's function is
			 * given: the verifier would follow each value through all rounds.
			 */
			__u64 low; /* where the program has saved a register; 0: not found yet */
			__u32 next; /* frame that is looked for */
			__u32 failed;
			struct known_way learned;
		};
	};
	__u64 copied; /* bytes of the copy */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

/*
 * The one value of a map: its address, by which the loader replaces the map's
 * (placeValues), in place of a look-up.
 */
#define VALUE_OF(map)                                       \
	({                                                  \
		void *value_;                               \
		asm volatile("%0 = " #map " ll" : "=r"(value_)); \
		value_;                                     \
	})

#define BUSY_ERR (-16) /* EBUSY */
#define EXIST_ERR (-17) /* EEXIST */
#define FULL_ERR (-7) /* E2BIG */

static __always_inline void lose(enum lost_reason why)
{
	__u32 i = spec.id * LOST_MAX + why;

	if (i < MAX_PROBES * LOST_MAX)
		__sync_fetch_and_add(&lost[i], 1);
}

/* The target that addr belongs to the text of, or -1. */
static __always_inline int target_of(__u64 addr)
{
	/* One is the rule, and half of what the loop takes. */
	if (spec.targets == 1)
		return addr - ranges[0].base < ranges[0].size || addr - ranges[1].base < ranges[1].size ? 0 : -1;
	for (__u32 i = 0; i < 2 * MAX_TARGETS; i++) {
		if (i >= 2 * spec.targets)
			break;
		if (addr - ranges[i].base < ranges[i].size)
			return i / 2;
	}
	return -1;
}

static __always_inline __u64 hash_of(__u64 key)
{
	return (key >> 3) * 0x9e3779b97f4a7c15ULL;
}

static __always_inline __u32 *filter_slot(__u64 key)
{
	return &filter[hash_of(key) >> (64 - FILTER_BITS)];
}

/* Freed blocks start no lower than this: NULL and ZERO_SIZE_PTR are nobody's. */
static __always_inline bool nothing(__u64 addr)
{
	return addr <= 16;
}

static __always_inline bool error_pointer(__u64 addr)
{
	return addr >= (layout.word == 4 ? (__u32)-4095 : (__u64)-4095);
}

/* A word of the kernel's memory; 0 where it can't be read. */
static __always_inline __u64 word_at(__u64 address)
{
	__u64 v = 0;

	bpf_probe_read_kernel(&v, layout.word == 4 ? 4 : 8, (void *)address);
	return v;
}

static __always_inline __u64 page_of(__u64 virt)
{
	return vmemmap_base + ((virt - page_offset_base) >> 12) * layout.struct_page;
}

/* The linear address of a page. */
static __always_inline __u64 shown(__u64 addr)
{
	__u64 linear;

	if (spec.space != SPACE_PAGE || !layout.struct_page)
		return addr;
	linear = page_offset_base + (addr - vmemmap_base) / layout.struct_page * 4096;
	/* High memory has none: then it is the struct page. */
	return layout.word == 4 && linear >> 32 ? addr : linear;
}

/*
 * The key of an object: its address, or that of its block, or of its struct page.
 * The tag goes to where all kernel addresses are alike, the highest byte.
 */
static __always_inline __u64 key_of(__u64 addr)
{
	if (spec.space == SPACE_PAGE_VIRT)
		addr = page_of(addr);
	return (addr - spec.inside) ^ (__u64)spec.tag << 56;
}

/*
 * The section of a load, by its index, that has the call which returns to addr;
 * MAX_SECTIONS: none. A global function, for what it returns is just a number then to the
 * verifier, and not as many as there are rounds.
 */
__noinline __u64 section_of(__u32 load, __u64 addr)
{
	struct load *ld = bpf_map_lookup_elem(&loads, &load);
	struct target *tg;
	__u32 t;

	if (!ld)
		return MAX_SECTIONS;
	t = ld->target;
	tg = bpf_map_lookup_elem(&targets, &t);
	if (!tg)
		return MAX_SECTIONS;
	/* Those that a target does not have are of no size. */
	for (__u32 i = 0; i < MAX_SECTIONS; i++) {
		if (i >= layout.sections)
			break;
		/* The call lies before the address that it returns to. */
		if (ld->section[i] && addr - 1 - ld->section[i] < tg->section[i].size)
			return i;
	}
	return MAX_SECTIONS;
}

#endif
