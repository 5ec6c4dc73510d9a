// Package sample is reports for the tests of those who write them.
package sample

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/compare"
	"kedr/internal/leak"
	"kedr/internal/session"
	"kedr/internal/source"
	"kedr/internal/suppress"
	"kedr/internal/target"
)

// Update is the flag of the tests that have golden files.
var Update = flag.Bool("update", false, "write the golden files anew")

// Base is where the module lay.
const Base = 0xffffffffc0500000

// Captures are sessions as a machine sends them; the module is the walkthrough's.
func Captures(t testing.TB) map[string]*session.Capture {
	t.Helper()
	kernel := map[uint64]session.Symbol{
		0xffffffff810024b9: {Function: "do_one_initcall", Offset: 0x59, Size: 0x220},
		0xffffffffc0700010: {Function: "helper", Offset: 0x10, Size: 0x20, Module: "other"},
	}
	one := func() *session.Capture {
		return &session.Capture{
			Release: "6.1.0-56-amd64", Machine: "x86_64",
			Targets: []session.Target{{Name: "hello_kernel", Path: "hello-kernel.ko", BuildID: "1f2e3d4c"}},
			Loads: []session.Load{{
				ID: 1, Core: Base, Init: 0xffffffffc0508000, Sections: []uint64{Base},
				Loaded: 10 * time.Second, Unloaded: 11 * time.Second, Allocations: 6, AllocatedBytes: 210, Frees: 2,
			}},
			Stacks: []session.Stack{
				{ID: 1, Frames: []uint64{Base + 0xb7, 0xffffffff810024b9}},
				{ID: 2, Frames: []uint64{Base + 0xbc, 0xffffffff810024b9}},
				{ID: 3, Frames: []uint64{Base + 0x47, Base + 0xbc, 0xffffffff810024b9}},
				{ID: 4, Frames: []uint64{Base + 0x8f, Base + 0xc6, 0xffffffffc0700010}},
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
	// What was given back came from here; of odd nothing of the kind was captured.
	given := func(c *session.Capture) {
		c.Stacks = append(c.Stacks, session.Stack{ID: 7, Frames: []uint64{Base + 0x6c, Base + 0xc1, 0xffffffff810024b9}})
		c.Kinds = map[string]string{"vmalloc": "vmalloc"}
		c.Sites = []session.Site{{Load: 1, Stack: 7, Objects: 1, Bytes: 40}}
	}
	clean := one()
	clean.Stacks, clean.Objects = nil, nil
	given(clean)
	clean.Loads[0].Frees = 6

	// Everything that a report can have to say, and a name that is out for trouble.
	odd := one()
	odd.Loads = append(odd.Loads, session.Load{ID: 2, Core: Base, Loaded: 20 * time.Second, Allocations: 1, UnallocatedFree: 3})
	odd.Objects = append(odd.Objects,
		session.Object{Load: 1, Stack: 3, Address: 0xffffc90000005000, Size: 20, Kind: "vmalloc", Function: "vmalloc", PID: 8, Comm: "a\x1b[2Jb", Time: 11 * time.Second},
		session.Object{Load: 2, Stack: 5, Address: 0xffff888000001000, Kind: "slab", PID: 9, Comm: "swapper", IRQ: true, Time: 21 * time.Second})
	odd.Stacks = append(odd.Stacks, session.Stack{ID: 5, Frames: []uint64{Base + 0x10}, Cut: true}, session.Stack{ID: 6, Frames: []uint64{Base + 0x6c}})
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
	hello := one()
	given(hello)
	// One of two objects of 50 bytes was given back, and one stack has no room in the map.
	hello.Sites = append(hello.Sites, session.Site{Load: 1, Stack: 1, Objects: 1, Bytes: 10},
		session.Site{Load: 1, Stack: 3, Objects: 1, Bytes: 20}, session.Site{Load: 1, Stack: 4, Objects: 2, Bytes: 110})
	return map[string]*session.Capture{"hello": hello, "clean": clean, "odd": odd, "never": never}
}

// root is the way from a test's directory to the project's.
func root(t testing.TB) string {
	t.Helper()
	for dir := "."; len(dir) < 64; dir = filepath.Join(dir, "..") {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above this test")
	return ""
}

// Examples is where the walkthrough's source is.
func Examples(t testing.TB) *source.Tree {
	t.Helper()
	return source.New(".", source.Root{From: "/src/hello-kernel", To: filepath.Join(root(t), "examples/hello-kernel")})
}

// Reports are those of a capture.
func Reports(t testing.TB, name string) []*leak.Report {
	t.Helper()
	m, err := target.Open(filepath.Join(root(t), "internal/target/testdata/hello-kernel.ko.xz"))
	if err != nil {
		t.Fatal(err)
	}
	return leak.New(Captures(t)[name], map[string]*target.Module{"hello_kernel": m})
}

// Report is that of the walkthrough's module.
func Report(t testing.TB, name string) *leak.Report {
	t.Helper()
	return Reports(t, name)[0]
}

// Many is a report of a great number of objects.
func Many(stacks, objects int) *leak.Report {
	r := &leak.Report{Target: leak.Target{Name: "many", Path: "many.ko"}, Kernel: leak.Kernel{Release: "6.1.0", Machine: "x86_64"}}
	var load leak.Load
	for i := range stacks {
		l := leak.Leak{Kind: "slab", Function: "kmalloc_trace", Comm: "insmod", PID: 1, Load: 1, Fingerprint: fmt.Sprintf("%016x", i)}
		for d := range 12 {
			// The digits of the number, so that the stacks are a tree.
			l.Stack = append(l.Stack, leak.Frame{
				Address: Base + leak.Address(i*16+d), Function: fmt.Sprintf("function_%d_%d", 11-d, i>>d), Offset: 0x10, Size: 0x40,
				Module: "many", File: "/src/many/file.c", Line: 10 + d,
			})
		}
		for o := range objects / stacks {
			l.Objects = append(l.Objects, leak.Object{Address: 0xffff888000000000 + leak.Address(o*64), Size: uint64(64 + i), PID: 1, Comm: "insmod", Time: float64(o*stacks+i) / 1000})
			l.Bytes += uint64(64 + i)
			l.Count++
		}
		r.LeakedBytes += l.Bytes
		r.PossibleLeaksTotal += l.Count
		r.PossibleLeaks = append(r.PossibleLeaks, l)
	}
	load.PossibleLeaks = r.PossibleLeaksTotal
	r.Loads = []leak.Load{load}
	return r
}

// LeftOut are reports of which some findings are suppressed, and some known.
func LeftOut(t testing.TB) []*leak.Report {
	t.Helper()
	list, err := suppress.Parse(strings.NewReader(`
{
   the ring is freed at the next load
   kedr:Leak
   match-kinds: vmalloc
   fun:myfunc1
}
{
   released for its owner
   kedr:Mismatched
   fun:myfunc3
}
`), "mine.supp")
	if err != nil {
		t.Fatal(err)
	}
	base := Reports(t, "odd")
	// The baseline has one object less of one call stack, and nothing of two others.
	for i := range base[0].PossibleLeaks {
		if l := &base[0].PossibleLeaks[i]; l.Count == 2 {
			l.Count, l.Bytes = 1, l.Bytes/2
		}
	}
	base[0].PossibleLeaks = base[0].PossibleLeaks[:2]
	base[0].LostEvents, base[0].Unwatched = 0, nil
	reports := Reports(t, "odd")
	suppress.NewSet(list).Apply(reports[0])
	compare.NewBaseline("base.json", base).Apply(reports[0])
	return reports
}

// Golden compares with a file of testdata, or writes it.
func Golden(t testing.TB, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *Update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (-want +got); after a look, go test -update writes it anew:\n%s", name, d)
	}
}
