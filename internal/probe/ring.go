package probe

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// The ring of a trace is that of bpf/ring.h: positions count bytes, and a chunk of the
// array has room behind it for a record that begins in it.
const (
	ringChunk  = 64 << 10 // RING_CHUNK
	ringStride = int(unsafe.Sizeof(kedrRingChunk{}))
	ringRecord = ringStride - ringChunk // RING_RECORD
	ringBell   = 4096
)

// ownRing says whether the kernel has what a ring of our own needs: an atomic compare and
// exchange. Requires Linux 5.12.
func (s *Set) ownRing() bool { return s.kernel.AtLeast(5, 12) }

// sizeRing makes room for so many bytes, a power of two, that wait to be read.
func (s *Set) sizeRing(bytes uint32) {
	if !s.ownRing() {
		s.spec.Maps["trace_ring"].ValueSize = 8
		s.spec.Maps["trace_events"].MaxEntries = bytes
		return
	}
	s.ring = kedrRingSpec{Bytes: bytes, Chunks: max(bytes/ringChunk, 1)}
	s.spec.Maps["trace_ring"].MaxEntries = s.ring.Chunks
	s.spec.Maps["trace_events"].MaxEntries = max(ringBell, uint32(os.Getpagesize()))
}

// TraceReader reads what a trace has seen.
type TraceReader struct {
	bell   *ringbuf.Reader // the kernel's ring; or what tells of ours
	record ringbuf.Record

	chunks    []byte // of our own ring; nil: there is none
	variables *variables
	state     *kedrRingState
	position  uint64
}

// TraceEvents returns a reader of the trace. There may be one at a time.
func (s *Set) TraceEvents() (_ *TraceReader, err error) {
	r := &TraceReader{}
	if r.bell, err = ringbuf.NewReader(s.shared["trace_events"]); err != nil {
		return nil, fmt.Errorf("reading the trace: %w", err)
	}
	if !s.ownRing() {
		return r, nil
	}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.variables, err = s.mapVariables(); err != nil {
		return nil, err
	}
	r.state = (*kedrRingState)(r.variables.pointer("ring", 0, 0))
	r.position = atomic.LoadUint64(&r.state.Consumed)
	m := s.shared["trace_ring"]
	r.chunks, err = mapped(m, unix.PROT_READ)
	if err != nil {
		return nil, fmt.Errorf("mapping the trace: %w", err)
	}
	r.chunks = r.chunks[:int(m.MaxEntries())*ringStride]
	return r, nil
}

// ErrNoEvent says that nothing came in time.
var ErrNoEvent = errors.New("no event yet")

// Next reads an event into e, and waits for one until a time; zero: for ever. Errors:
// ErrNoEvent, os.ErrClosed.
func (r *TraceReader) Next(e *TraceEvent, until time.Time) error {
	waited := false
	for {
		if r.state != nil {
			ok, err := r.take(e)
			if ok || err != nil {
				return err
			}
			if waited {
				return ErrNoEvent
			}
		}
		if !waited {
			r.bell.SetDeadline(until)
		}
		err := r.bell.ReadInto(&r.record)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ringbuf.ErrFlushed) {
			// What does not fill the ring rings no bell.
			if waited = r.state != nil; waited {
				continue
			}
			return ErrNoEvent
		}
		if err != nil {
			return fmt.Errorf("reading the trace: %w", err)
		}
		if r.state == nil && decodeEvent(r.record.RawSample, e) {
			return nil
		}
	}
}

// take reads the next record of our own ring, where there is one.
func (r *TraceReader) take(e *TraceEvent) (bool, error) {
	for {
		chunk := r.position / ringChunk % uint64(len(r.chunks)/ringStride)
		b := r.chunks[int(chunk)*ringStride+int(r.position%ringChunk):]
		mark := atomic.LoadUint64((*uint64)(unsafe.Pointer(&b[0])))
		if mark>>16 != r.position&(1<<48-1) || mark == 0 {
			return false, nil
		}
		n := int(mark & 0xffff)
		if n < returnLen || n > ringRecord || n%8 != 0 {
			return false, fmt.Errorf("reading the trace: a record of %d bytes at %#x", n, r.position)
		}
		ok := decodeEvent(b[:n], e)
		r.position += uint64(n)
		atomic.StoreUint64(&r.state.Consumed, r.position)
		if ok {
			return true, nil
		}
	}
}

// Flush makes Next return what is there and then ErrNoEvent, without waiting.
func (r *TraceReader) Flush() error { return r.bell.Flush() }

// Close ends the reading; a Next that waits returns. What is mapped goes with the process:
// a Next may be looking at it.
func (r *TraceReader) Close() error { return r.bell.Close() }
