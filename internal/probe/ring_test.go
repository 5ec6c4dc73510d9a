package probe

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"kedr/internal/trace"
)

// ringOf is a reader of so many chunks, and their memory.
func ringOf(chunks int, position uint64) (*TraceReader, []byte) {
	b := make([]byte, chunks*ringStride+8)
	b = b[(8-int(uintptr(unsafe.Pointer(&b[0]))%8))%8:]
	b = b[:chunks*ringStride]
	return &TraceReader{chunks: b, state: &kedrRingState{Consumed: position}, position: position}, b
}

// write puts a record where the programs put it, and returns the next position.
func write(b []byte, position uint64, what uint8, id uint64, length int) uint64 {
	chunks := uint64(len(b) / ringStride)
	r := b[int(position/ringChunk%chunks)*ringStride+int(position%ringChunk):]
	r[whatAt] = what
	binary.NativeEndian.PutUint64(r[unsafe.Offsetof(kedrTraceEvent{}.Id):], id)
	binary.NativeEndian.PutUint64(r, position<<16|uint64(length))
	return position + uint64(length)
}

func TestRing(t *testing.T) {
	if ringRecord < eventLen+trace.MaxCaptures*captureLen {
		t.Fatalf("room for %d bytes behind a chunk, and a record may have %d", ringRecord, eventLen+trace.MaxCaptures*captureLen)
	}
	for _, start := range []uint64{0, ringChunk - 8, 4*ringChunk - 8, 1<<47 + ringChunk - 8, 1<<48 - 2*ringChunk} {
		r, b := ringOf(4, start)
		at, read := start, start
		// Several times round, a few records ahead.
		for round := range uint64(6000) {
			var ids []uint64
			for i := range 1 + round%3 {
				id := round<<8 | i
				what, length := uint8(trace.Call), eventLen+int(round%8)*captureLen
				if i == 1 {
					what, length = trace.Return, returnLen
				}
				at = write(b, at, what, id, length)
				ids = append(ids, id)
			}
			for _, id := range ids {
				var e TraceEvent
				ok, err := r.take(&e)
				if !ok || err != nil || e.ID != id {
					t.Fatalf("from %#x, at %#x: %v %v: %#x, want %#x", start, read, ok, err, e.ID, id)
				}
			}
			var e TraceEvent
			if ok, err := r.take(&e); ok || err != nil {
				t.Fatalf("from %#x: an event where none has been written: %v %+v", start, err, e)
			}
			if read = r.state.Consumed; read != at {
				t.Fatalf("from %#x: %#x read, and %#x written", start, read, at)
			}
		}
	}
}

func TestRingBroken(t *testing.T) {
	for _, length := range []int{0, 8, returnLen - 8, returnLen + 4, ringRecord + 8, 0xfff8} {
		r, b := ringOf(1, 0)
		write(b, 64, trace.Return, 1, length)
		r.position = 64
		var e TraceEvent
		if ok, err := r.take(&e); ok || err == nil {
			t.Errorf("a record of %d bytes was read: %v", length, err)
		}
	}
}
