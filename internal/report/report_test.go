package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/leak"
	"kedr/internal/session"
	"kedr/internal/target"
)

var update = flag.Bool("update", false, "write the golden files anew")

const base = 0xffffffffc0500000

// captures are sessions as a machine sends them; the module is the walkthrough's.
func captures(t *testing.T) map[string]*session.Capture {
	t.Helper()
	kernel := map[uint64]session.Symbol{
		0xffffffff810024b9: {Function: "do_one_initcall", Offset: 0x59, Size: 0x220},
		0xffffffffc0700010: {Function: "helper", Offset: 0x10, Size: 0x20, Module: "other"},
	}
	one := func() *session.Capture {
		return &session.Capture{
			Release: "6.1.0-56-amd64", Machine: "x86_64",
			Targets: []session.Target{{Name: "hello_kernel", Path: "hello-kernel.ko"}},
			Loads: []session.Load{{
				ID: 1, Core: base, Init: 0xffffffffc0508000, Sections: []uint64{base},
				Loaded: 10 * time.Second, Unloaded: 11 * time.Second, Allocations: 6, AllocatedBytes: 210, Frees: 2,
			}},
			Stacks: []session.Stack{
				{ID: 1, Frames: []uint64{base + 0xb7, 0xffffffff810024b9}},
				{ID: 2, Frames: []uint64{base + 0xbc, 0xffffffff810024b9}},
				{ID: 3, Frames: []uint64{base + 0x47, base + 0xbc, 0xffffffff810024b9}},
				{ID: 4, Frames: []uint64{base + 0x8f, base + 0xc6, 0xffffffffc0700010}},
			},
			Objects: []session.Object{
				{Load: 1, Stack: 1, Address: 0xffffc90000001000, Size: 10, Kind: "vmalloc", Function: "vmalloc", PID: 7, Comm: "insmod", Time: 10001 * time.Millisecond},
				{Load: 1, Stack: 3, Address: 0xffffc90000002000, Size: 20, Kind: "vmalloc", Function: "vmalloc", PID: 7, Comm: "insmod", Time: 10002 * time.Millisecond},
				{Load: 1, Stack: 2, Address: 0xffffc90000003000, Size: 30, Kind: "vmalloc", Function: "vmalloc", PID: 7, Comm: "insmod", Time: 10003 * time.Millisecond},
				{Load: 1, Stack: 4, Address: 0xffffc90000004000, Size: 50, Kind: "vmalloc", Function: "vmalloc", PID: 7, Comm: "insmod", Time: 10004 * time.Millisecond},
			},
			Symbols: kernel,
			Settle:  time.Second,
		}
	}
	clean := one()
	clean.Stacks, clean.Objects = nil, nil
	clean.Loads[0].Frees = 6

	// Everything that a report can have to say, and a name that is out for trouble.
	odd := one()
	odd.Loads = append(odd.Loads, session.Load{ID: 2, Core: base, Loaded: 20 * time.Second, Allocations: 1, UnallocatedFree: 3})
	odd.Objects = append(odd.Objects,
		session.Object{Load: 1, Stack: 3, Address: 0xffffc90000005000, Size: 20, Kind: "vmalloc", Function: "vmalloc", PID: 8, Comm: "a\x1b[2Jb", Time: 11 * time.Second},
		session.Object{Load: 2, Stack: 5, Address: 0xffff888000001000, Kind: "slab", PID: 9, Comm: "swapper", IRQ: true, Time: 21 * time.Second})
	odd.Stacks = append(odd.Stacks, session.Stack{ID: 5, Frames: []uint64{base + 0x10}, Cut: true}, session.Stack{ID: 6, Frames: []uint64{base + 0x6c}})
	rmmod := session.Party{Stack: 6, PID: 9, Comm: "rmmod"}
	insmod := session.Party{Stack: 3, PID: 8, Comm: "insmod"}
	odd.Loads[1].Mismatched = 1
	odd.WrongFrees = []session.WrongFree{
		{Load: 2, Wrong: session.Unallocated, Address: 0xffff888000002000, Kind: "slab", Party: rmmod, Count: 2},
		{Load: 2, Wrong: session.Mismatched, Address: 0xffffc90000006000, Kind: "vmalloc", Function: "vfree", Party: rmmod, Count: 1,
			Object: &session.Released{Size: 40, Kind: "slab", Function: "kmalloc_trace", Obtained: insmod}},
		{Load: 2, Wrong: session.Double, Address: 0xffffc90000007000, Kind: "vmalloc", Function: "vfree", Party: rmmod, Count: 1,
			Object: &session.Released{Kind: "vmalloc", Function: "vmalloc", Obtained: insmod, First: &rmmod}},
	}
	odd.Lost = []session.Lost{{Function: "kfree", Reason: "the table of objects was busy", Count: 3}}
	odd.Unwatched = []session.Unwatched{{Function: "kmemdup", Reason: "no such function in this kernel"}}
	odd.LoadError = "invalid argument"

	never := one()
	never.Loads, never.Stacks, never.Objects, never.Settle = nil, nil, nil, 0
	return map[string]*session.Capture{"hello": one(), "clean": clean, "odd": odd, "never": never}
}

func TestGolden(t *testing.T) {
	m, err := target.Open("../target/testdata/hello-kernel.ko.xz")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range captures(t) {
		reports := leak.New(c, map[string]*target.Module{"hello_kernel": m})
		for _, f := range Formats {
			t.Run(name+"."+f.Name, func(t *testing.T) {
				var got bytes.Buffer
				if err := f.Write(&got, reports[0], Options{}); err != nil {
					t.Fatal(err)
				}
				golden := filepath.Join("testdata", name+"."+f.Name)
				if *update {
					if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), got.String()); d != "" {
					t.Errorf("%s differs (-want +got); after a look, go test -update writes it anew:\n%s", golden, d)
				}
			})
		}
	}
}

// TestWithoutFile: a module that is gone by the time of the report.
func TestWithoutFile(t *testing.T) {
	r := leak.New(captures(t)["hello"], nil)[0]
	if r.PossibleLeaksTotal != 4 || len(r.Notes) != 1 || r.PossibleLeaks[0].Stack[0].Address != base+0x8f {
		t.Errorf("%+v", r)
	}
}

// TestJSONReadsBack: what is written is what is read.
func TestJSONReadsBack(t *testing.T) {
	r := leak.New(captures(t)["odd"], nil)[0]
	var b bytes.Buffer
	if err := writeJSON(&b, r, Options{}); err != nil {
		t.Fatal(err)
	}
	var back leak.Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, &back); d != "" {
		t.Errorf("differs (-want +got):\n%s", d)
	}
}

func TestFind(t *testing.T) {
	if _, err := Find("xml"); err == nil || err.Error() != `no format "xml": there is text, json` {
		t.Errorf("error %v", err)
	}
}
