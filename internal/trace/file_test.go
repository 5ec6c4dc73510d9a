package trace

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

func sample() (Header, []Record) {
	h := Header{
		Version: Version, Release: "6.1.0", Machine: "x86_64", Started: time.Date(2026, 11, 23, 12, 0, 0, 5000, time.UTC), Boot: 1000,
		Targets: []string{"m"}, Untraced: []Untraced{{"memcpy", "notrace"}}, Off: []string{"memset"},
		Functions: []Function{{Name: "f", Known: true, Params: []Param{{Name: "a", Type: Type{Class: String, Size: 8}}},
			Result: Type{Class: Int, Size: 4, Signed: true}, Captures: []Capture{{Param: 0, Type: Type{Class: String}}}}},
	}
	live := int64(-3)
	return h, []Record{
		{Site: &Site{ID: 1, Address: 0xffffffffc0000000, Frames: []Line{{Function: "g", Offset: 3, Size: 9, File: "g.c", Line: 4}}}},
		{Event: &Event{What: Call, Time: 1100, ID: 9, Site: 1, Args: []uint64{7}, Captured: []Captured{{Data: []byte("x"), Cut: true}}, Live: &live}},
		{Event: &Event{What: Return, Time: 1200, ID: 9, Result: ^uint64(0)}},
		{End: &End{Time: 1300, Lost: []Lost{{"f", "full", 2}}}},
	}
}

func write(t testing.TB, h *Header, records []Record) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, h)
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := w.Write(&records[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(b []byte) (h Header, records []Record, err error) {
	r, err := NewReader(bytes.NewReader(b))
	if err != nil {
		return h, nil, err
	}
	defer r.Close()
	for {
		var rec Record
		if err := r.Next(&rec); err != nil {
			return r.Header, records, err
		}
		records = append(records, rec)
	}
}

func TestFile(t *testing.T) {
	h, records := sample()
	b := write(t, &h, records)
	gotHeader, got, err := read(b)
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if d := cmp.Diff(h, gotHeader); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(records, got); d != "" {
		t.Error(d)
	}
	// Every beginning of a file is one that was cut off, or nothing at all.
	for n := range b {
		_, _, err := read(b[:n])
		if !errors.Is(err, ErrCutOff) && !errors.Is(err, ErrNotTrace) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	// Without an end it is cut off, too.
	if _, got, err := read(write(t, &h, records[:3])); !errors.Is(err, ErrCutOff) || len(got) != 3 {
		t.Errorf("no end: %d records, %v", len(got), err)
	}
}

func TestFileErrors(t *testing.T) {
	for name, change := range map[string]func(h *Header, records []Record){
		"later version": func(h *Header, _ []Record) { h.Version = Version + 1 },
		"no version":    func(h *Header, _ []Record) { h.Version = 0 },
		"function":      func(_ *Header, r []Record) { r[1].Event.Function = 1 },
		"negative":      func(_ *Header, r []Record) { r[1].Event.Function = -1 },
		"target":        func(_ *Header, r []Record) { r[1].Event.Target = 1 },
		"site":          func(_ *Header, r []Record) { r[1].Event.Site = 2 },
		"site's target": func(_ *Header, r []Record) { r[0].Site.Target = 5 },
		"capture":       func(_ *Header, r []Record) { r[1].Event.Captured[0].Capture = 1 },
		"parameter":     func(h *Header, _ []Record) { h.Functions[0].Captures[0].Param = 1 },
		"slot":          func(h *Header, _ []Record) { h.Functions[0].Params[0].Slot = -1 },
	} {
		h, records := sample()
		change(&h, records)
		_, _, err := read(write(t, &h, records))
		var version *VersionError
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, ErrCutOff) || (name == "later version") != errors.As(err, &version) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{"empty": nil, "text": []byte("hello, this is a text"), "gzip": {0x1f, 0x8b, 8, 0, 0, 0}} {
		if _, _, err := read(b); !errors.Is(err, ErrNotTrace) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFileUnknownKeys: fields may be added.
func TestFileUnknownKeys(t *testing.T) {
	h, records := sample()
	var b bytes.Buffer
	z, _ := zstd.NewWriter(&b)
	enc := cbor.NewEncoder(z)
	head, _ := cbor.Marshal(h)
	var m map[uint64]any
	if err := cbor.Unmarshal(head, &m); err != nil {
		t.Fatal(err)
	}
	m[999] = "new"
	if err := errors.Join(enc.Encode(Magic), enc.Encode(m), enc.Encode(map[int]any{77: 1}), enc.Encode(&records[3]), z.Close()); err != nil {
		t.Fatal(err)
	}
	if _, got, err := read(b.Bytes()); !errors.Is(err, io.EOF) || len(got) != 2 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

func FuzzReader(f *testing.F) {
	h, records := sample()
	f.Add(write(f, &h, records))
	f.Add([]byte("kedr"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, records, _ := read(b)
		for i := range records {
			e := records[i].Event
			if e == nil || e.What != Call && e.What != Return && e.What != Whole {
				continue
			}
			fn := &h.Functions[e.Function]
			fn.Args(e)
			fn.ResultOf(e.Result, e.Captured)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	h, records := sample()
	w, _ := NewWriter(io.Discard, &h)
	for b.Loop() {
		w.Write(&records[1])
	}
}
