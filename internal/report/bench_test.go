package report

import (
	"bytes"
	"io"
	"runtime"
	"testing"
	"time"

	"kedr/internal/leak"
	"kedr/internal/report/sample"
	"kedr/internal/session"
)

// large is a capture with that many outstanding objects of a thousand call stacks.
func large(objects uint64) *session.Capture {
	const stacks = 1000
	c := &session.Capture{
		Targets: []session.Target{{Name: "m", Path: "m.ko"}},
		Loads:   []session.Load{{ID: 1, Core: sample.Base, Loaded: time.Second, Unloaded: 2 * time.Second, Allocations: objects}},
		Symbols: make(map[uint64]session.Symbol),
	}
	for i := range uint64(stacks) {
		st := session.Stack{ID: i + 1}
		for depth := range uint64(16) {
			a := 0xffffffff81000000 + (i*7+depth)<<8
			c.Symbols[a] = session.Symbol{Function: "function", Offset: depth, Size: 256}
			st.Frames = append(st.Frames, a)
		}
		c.Stacks = append(c.Stacks, st)
		c.Sites = append(c.Sites, session.Site{Load: 1, Stack: st.ID, Objects: 2 * objects / stacks, Bytes: 128 * objects / stacks})
	}
	for i := range objects {
		c.Objects = append(c.Objects, session.Object{
			Load: 1, Stack: i%stacks + 1, Address: 0xffff888000000000 + i<<6, Size: 64,
			Kind: "slab", Function: "__kmalloc", PID: 100, Comm: "insmod", Time: time.Duration(i),
		})
	}
	return c
}

// BenchmarkMillion is what a million leaked objects cost: to sort them out, to write them
// in each format, and to read them back.
func BenchmarkMillion(b *testing.B) {
	c := large(1_000_000)
	b.Run("leak.New", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			leak.New(c, nil)
		}
	})
	reports := leak.New(c, nil)
	for name, write := range outputs() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := new(counter)
				if err := write(n, reports); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(*n), "B")
			}
		})
	}
	var doc bytes.Buffer
	if err := writeJSON(&doc, reports, Options{}); err != nil {
		b.Fatal(err)
	}
	b.Run("Read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Read(bytes.NewReader(doc.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// counter counts what is written.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// TestMemory: no writer needs memory for each object, so that the report of a machine's
// worth of leaks can be written where it could be made.
func TestMemory(t *testing.T) {
	const objects = 100_000
	reports := leak.New(large(objects), nil)
	for name, write := range outputs() {
		peak := &peak{}
		runtime.GC()
		runtime.ReadMemStats(&peak.stats)
		before := peak.stats.HeapAlloc
		if err := write(peak, reports); err != nil {
			t.Fatal(err)
		}
		peak.look()
		// The frames of a thousand stacks are 24 MB in SARIF; the JSON document of all
		// objects in one piece would be 90.
		if grown := int64(peak.most) - int64(before); grown > 40<<20 {
			t.Errorf("%s: the heap grew by %d MB", name, grown>>20)
		}
	}
}

// peak watches the heap while something is written.
type peak struct {
	stats runtime.MemStats
	most  uint64
	n     int
}

func (p *peak) Write(b []byte) (int, error) {
	if p.n++; p.n%1024 == 0 {
		p.look()
	}
	return len(b), nil
}

func (p *peak) look() {
	runtime.ReadMemStats(&p.stats)
	p.most = max(p.most, p.stats.HeapAlloc)
}

var _ io.Writer = (*peak)(nil)
