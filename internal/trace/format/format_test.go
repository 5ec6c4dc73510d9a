package format

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/trace"
)

var update = flag.Bool("update", false, "write the golden files anew")

func typ(c trace.Class, name string, size int) trace.Type {
	return trace.Type{Class: c, Name: name, Size: size}
}

// sample is a module with an init, a timer's callback in an interrupt on top of it, a
// second thread that is blocked for long, and everything else that can be in a trace.
func sample() (*trace.Header, []trace.Record) {
	signed := trace.Type{Class: trace.Int, Name: "int", Size: 4, Signed: true}
	gfp := trace.Type{Class: trace.Flags, Name: "gfp_t", Size: 4, Names: []trace.Name{{Value: 0xcc0, Name: "GFP_KERNEL"}, {Value: 0x820, Name: "GFP_ATOMIC"}}}
	h := &trace.Header{
		Version: 1, Release: "6.1.0-1-amd64", Machine: "x86_64", Targets: []string{"mod"}, Boot: 1_000_000_000,
		Started: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
		Functions: []trace.Function{
			{Name: "__kmalloc", Known: true, Result: typ(trace.Pointer, "void *", 8), Params: []trace.Param{
				{Name: "size", Type: typ(trace.Int, "size_t", 8)}, {Name: "flags", Type: gfp, Slot: 1}}},
			{Name: "filp_open", Known: true, Result: typ(trace.Pointer, "struct file *", 8),
				Params:   []trace.Param{{Name: "filename", Type: typ(trace.String, "const char *", 8)}, {Name: "f", Type: typ(trace.Pointer, "struct foo *", 8), Slot: 1}},
				Captures: []trace.Capture{{Param: 0, Type: typ(trace.String, "", 0)}, {Param: 1, Field: "n", Offset: 8, Type: signed}}},
			{Name: "_printk", Known: true, Variadic: true, Result: signed, Params: []trace.Param{{Name: "fmt", Type: typ(trace.String, "const char *", 8)}},
				Captures: []trace.Capture{{Param: 0, Type: typ(trace.String, "", 0)}}},
			{Name: "mod_init", Callback: true, Known: true, Result: signed},
			{Name: "tick", Callback: true, Known: true, Result: trace.Type{Class: trace.Enum, Size: 4, Names: []trace.Name{{Value: 1, Name: "HRTIMER_RESTART"}}},
				Params: []trace.Param{{Name: "t", Type: typ(trace.Pointer, "struct hrtimer *", 8)}}},
			{Name: "wait", Known: true, Result: typ(trace.Void, "void", 0), Params: []trace.Param{{Name: "seventh", Type: signed, Slot: 6}}},
			{Name: "unknown"},
		},
		Untraced: []trace.Untraced{{Function: "memcpy", Reason: "notrace"}, {Function: "mod_exit", Reason: "notrace"}},
		Off:      []string{"_raw_spin_lock"},
	}
	at := func(us uint64) uint64 { return h.Boot + us*1000 }
	live := func(n int64) *int64 { return &n }
	ev := func(e trace.Event) trace.Record {
		if e.TID == 0 && e.PID == 0 {
			e.PID, e.TID, e.Comm, e.CPU = 97, 97, "insmod", 1
		}
		return trace.Record{Event: &e}
	}
	site := func(id uint32, function, file string, line int, inlined string) trace.Record {
		s := &trace.Site{ID: id, Address: 0xffffffffc0001000 + uint64(id), Frames: []trace.Line{{Function: function, Offset: 0x1b, Size: 0x40, Module: "mod", File: file, Line: line}}}
		if inlined != "" {
			s.Frames = append([]trace.Line{{Function: inlined, File: file, Line: line + 1}}, s.Frames...)
			s.Frames[1].File, s.Frames[1].Line = file, 99
		}
		return trace.Record{Site: s}
	}
	return h, []trace.Record{
		ev(trace.Event{What: trace.Loaded, Time: at(1)}),
		ev(trace.Event{What: trace.Call, Time: at(10), ID: 1000, Function: 3}),
		site(1, "mod_init", "/src/mod/mod.c", 12, ""),
		ev(trace.Event{What: trace.Call, Time: at(20), ID: 900, Function: 0, Site: 1, Args: []uint64{64, 0xcc0}, Live: live(0)}),
		ev(trace.Event{What: trace.Return, Time: at(25), ID: 900, Function: 0, Result: 0xffff888003a4c000}),
		// Another thread blocks for 200 ms.
		site(2, "worker", "/src/mod/mod.c", 40, "helper"),
		{Event: &trace.Event{What: trace.Call, Time: at(26), CPU: 0, PID: 50, TID: 51, Comm: "kw\x1b[31m", ID: 500, Function: 5, Site: 2, Args: []uint64{1, 2, 3, 4, 5, 6}}},
		ev(trace.Event{What: trace.Call, Time: at(30), ID: 900, Function: 1, Site: 1, Args: []uint64{0xffffffffc0002000, 0xffff888000001000}, Live: live(64),
			Captured: []trace.Captured{{Capture: 0, Data: []byte("/a\n\"b\"")}, {Capture: 1, Data: []byte{0xfe, 0xff, 0xff, 0xff}}}}),
		// An interrupt on top.
		ev(trace.Event{What: trace.Call, Time: at(31), ID: 700, Function: 4, Context: trace.InHardirq, Args: []uint64{0xffffffffc0003000}}),
		ev(trace.Event{What: trace.Call, Time: at(32), ID: 650, Function: 0, Site: 1, Context: trace.InHardirq, Args: []uint64{32, 0x820}, Live: live(64)}),
		ev(trace.Event{What: trace.Return, Time: at(33), ID: 650, Function: 0, Context: trace.InHardirq}),
		ev(trace.Event{What: trace.Return, Time: at(34), ID: 700, Function: 4, Result: 1, Context: trace.InHardirq}),
		ev(trace.Event{What: trace.Return, Time: at(40), ID: 900, Function: 1, Result: ^uint64(1)}),
		// A return whose call was lost is nothing to show.
		ev(trace.Event{What: trace.Return, Time: at(41), ID: 12345, Function: 0}),
		ev(trace.Event{What: trace.Whole, Time: at(42), ID: 1, Function: 2, Site: 1, Result: 5, Duration: 1500, Args: []uint64{0xffffffffc0002000},
			Captured: []trace.Captured{{Capture: 0, Data: bytes.Repeat([]byte("x"), 63), Cut: true}}}),
		ev(trace.Event{What: trace.Call, Time: at(50), Function: 6, Site: 1, Jump: true}),
		ev(trace.Event{What: trace.Return, Time: at(60), ID: 1000, Function: 3, Result: 0xffffffea}),
		ev(trace.Event{What: trace.Call, Time: at(150_000), ID: 900, Function: 2, Site: 1, Args: []uint64{1}, Captured: []trace.Captured{{Capture: 0, Failed: true}}}),
		ev(trace.Event{What: trace.Return, Time: at(150_001), ID: 900, Function: 2, Result: 3}),
		{Event: &trace.Event{What: trace.Return, Time: at(200_026), CPU: 0, PID: 50, TID: 51, Comm: "kw\x1b[31m", ID: 500, Function: 5}},
		// Its return is not seen.
		ev(trace.Event{What: trace.Call, Time: at(200_100), ID: 800, Function: 5, Site: 1}),
		ev(trace.Event{What: trace.Unloaded, Time: at(200_200)}),
		// Once more, and the trace ends in it.
		ev(trace.Event{What: trace.Loaded, Time: at(200_250)}),
		ev(trace.Event{What: trace.Call, Time: at(200_260), ID: 1000, Function: 3}),
		{End: &trace.End{Time: at(200_300), Lost: []trace.Lost{{Function: "__kmalloc", Reason: "the trace's buffer was full", Count: 3}, {Reason: "in interrupts", Count: 1}}}},
	}
}

func show(t testing.TB, name string, records []trace.Record, h *trace.Header, o Options) string {
	t.Helper()
	f, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := f.New(&b, h, o)
	for i := range records {
		if err := w.Record(&records[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (go test -update writes it anew):\n%s", file, d)
	}
}

func TestGolden(t *testing.T) {
	h, records := sample()
	for _, f := range Formats {
		golden(t, f.Name, show(t, f.Name, records, h, Options{Dir: "/src"}))
	}
	golden(t, "text-color", show(t, "text", records, h, Options{Dir: "/src", Color: true}))
	golden(t, "text-cut", show(t, "text", records[:9], h, Options{Dir: "/src"}))
}

// TestPrintable: what is from the kernel's memory does not reach a terminal as it is.
func TestPrintable(t *testing.T) {
	h, records := sample()
	for _, f := range Formats {
		if out := show(t, f.Name, records, h, Options{Dir: "/src"}); strings.ContainsRune(out, '\x1b') {
			t.Errorf("%s: an escape sequence", f.Name)
		}
	}
}

// TestJSON: lines, and the timeline, can be parsed; the timeline when it is cut, too, as its
// viewers do.
func TestJSON(t *testing.T) {
	h, records := sample()
	for line := range strings.Lines(show(t, "json", records, h, Options{})) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q", line)
		}
	}
	if out := show(t, "chrome", records[:5], h, Options{}); !json.Valid([]byte(out)) {
		t.Errorf("%q", out)
	}
}

func TestFind(t *testing.T) {
	if _, err := Find("xml"); err == nil || !strings.Contains(err.Error(), "text, json, chrome, summary") {
		t.Error(err)
	}
}

// BenchmarkText is of a million events; each costs the same.
func BenchmarkText(b *testing.B) {
	h, _ := sample()
	call := trace.Record{Event: &trace.Event{What: trace.Call, PID: 1, TID: 1, Comm: "x", ID: 9, Args: []uint64{64, 0xcc0}}}
	back := trace.Record{Event: &trace.Event{What: trace.Return, PID: 1, TID: 1, Comm: "x", ID: 9, Result: 0xffff888003a4c000}}
	f, _ := Find("text")
	for b.Loop() {
		w := f.New(io.Discard, h, Options{})
		for i := range uint64(500_000) {
			call.Event.Time, back.Event.Time = h.Boot+i*100, h.Boot+i*100+50
			w.Record(&call)
			w.Record(&back)
		}
		w.Close()
	}
}
