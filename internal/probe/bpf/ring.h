/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The ring that a trace goes to. The kernel's takes some 165 instructions a record, for it
 * has to do with a lock; where the kernel has an atomic compare and exchange (Linux 5.12)
 * there is one of our own, in an array that user space maps, which takes a quarter of that.
 *
 * A record is reserved by moving ring.produced on, so that records lie in the order in which
 * they were reserved, on whatever CPU. It is there when its first word, the mark, has been
 * written: its position, 48 bits of it, and its length. The reader waits at a record that
 * has no mark yet, as it has to: an interrupt may have put records behind it. It gives room
 * back by moving ring.consumed on. What is left of older records never looks like a mark,
 * for no position comes twice.
 *
 * The array's elements are chunks of the ring, each with room behind it for a record that
 * begins in it and does not fit. User space, in probe/ring.go, knows this layout as well.
 */
#ifndef KEDR_RING_H
#define KEDR_RING_H

#include "caller.h"

#define RING_CHUNK (64 * 1024)
#define RING_RECORD 1024 /* the longest */
#define RING_TRIES 16
/* Bytes between one waking of the reader and the next; it looks now and then by itself. */
#define RING_WAKE RING_CHUNK

struct ring_chunk {
	char data[RING_CHUNK + RING_RECORD];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ring_chunk);
} trace_ring SEC(".maps");

/* The kernel's ring; beside one of our own it is what wakes the reader. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} trace_events SEC(".maps");

/* How far the ring has been written and read, in bytes since it was made. */
struct ring_state {
	__u64 produced __attribute__((aligned(64)));
	__u64 consumed __attribute__((aligned(64)));
} ring;

struct ring_spec {
	__u32 bytes; /* that may wait to be read; 0: the kernel's ring is used */
	__u32 chunks; /* of the array, a power of two */
};

const volatile struct ring_spec ringing = {};

/* Room for a record, to be submitted whatever happens; NULL: there is none. */
static __always_inline void *ring_reserve(__u64 size, __u64 *mark)
{
	struct ring_chunk *chunk;
	__u64 at;
	__u32 n;

	if (!ringing.bytes)
		return bpf_ringbuf_reserve(&trace_events, size, 0);
	at = *(volatile __u64 *)&ring.produced;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < RING_TRIES; i++) {
		__u64 was;

		if (at + size - *(volatile __u64 *)&ring.consumed > ringing.bytes)
			return NULL;
		was = __sync_val_compare_and_swap(&ring.produced, at, at + size);
		if (was == at)
			goto reserved;
		at = was;
	}
	return NULL;
reserved:
	*mark = at << 16 | size;
	n = at / RING_CHUNK & (ringing.chunks - 1);
	chunk = bpf_map_lookup_elem(&trace_ring, &n);
	if (!chunk)
		return NULL;
	barrier_var(chunk); /* nothing is added to it before that */
	return chunk->data + at % RING_CHUNK;
}

static __always_inline void ring_submit(void *record, __u64 size, __u64 mark, bool wake)
{
	if (!ringing.bytes) {
		/* A record's address tells where in the ring it lies. */
		wake |= (scalar(record) & (RING_WAKE - 1)) < size;
		bpf_ringbuf_submit(record, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
		return;
	}
	barrier();
	*(volatile __u64 *)record = mark;
	if (wake || (mark >> 16 & (RING_WAKE - 1)) + size >= RING_WAKE) {
		__u64 bell = 0;

		bpf_ringbuf_output(&trace_events, &bell, sizeof(bell), BPF_RB_FORCE_WAKEUP);
	}
}

/* A record that lies elsewhere so far; its first word is to be 0. Says whether it failed. */
static __always_inline long ring_output(void *from, __u64 size)
{
	__u64 mark;
	void *record;

	if (!ringing.bytes)
		return bpf_ringbuf_output(&trace_events, from, size, 0);
	record = ring_reserve(size, &mark);
	if (!record)
		return -1;
	bpf_probe_read_kernel(record, size, from);
	ring_submit(record, size, mark, false);
	return 0;
}

#endif
