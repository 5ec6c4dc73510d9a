package matrix

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/leak"
)

var update = flag.Bool("update", false, "write the golden files anew")

// status is an exit status for each outcome; which ones is not this package's business.
func status(o Outcome) int { return int(o) + 10 }

func frames(function string, line int) []leak.Frame {
	return []leak.Frame{
		{Function: "kmalloc_wrapper", Module: "other"},
		{Function: function, Module: "hello", File: "/src/hello.c", Line: line},
		{Function: "hello_init", Module: "hello", File: "/src/hello.c", Line: 90},
	}
}

func found(leaks ...leak.Leak) *leak.Report {
	r := &leak.Report{Target: leak.Target{Name: "hello"}, Allocations: 6, AllocatedBytes: 210, PossibleLeaks: leaks}
	for _, l := range leaks {
		r.PossibleLeaksTotal += l.Count
		r.LeakedBytes += l.Bytes
	}
	return r
}

func small(line int) leak.Leak {
	return leak.Leak{Fingerprint: "00000000000000aa", Kind: "vmalloc", Count: 1, Bytes: 20, Stack: frames("myfunc2", line)}
}

var large = leak.Leak{Fingerprint: "00000000000000bb", Kind: "slab", Count: 3, Bytes: 3000, Stack: frames("grow", 7)}

func tables() map[string]*Table {
	wrong := found(small(27))
	wrong.UnallocatedFreesTotal, wrong.MismatchedTotal = 2, 1
	wrong.UnallocatedFrees = []leak.Wrong{
		{Wrong: "double", Fingerprint: "00000000000000cc", Kind: "slab", Count: 2, Stack: frames("drop", 50)},
		{Wrong: "mismatched", Fingerprint: "00000000000000dd", Kind: "vmalloc", Count: 1},
	}
	lost := found()
	lost.LostEvents = 4
	lost.Lost = []leak.Lost{{Function: "kfree", Reason: "the table was busy", Count: 4}}
	lost.Unwatched = []leak.Unwatched{{Function: "vmap", Reason: "not in this kernel"}}
	// Of three leaks one is suppressed and one of two objects is in the baseline; then nothing counts.
	some := found(small(27), small(28), large)
	some.PossibleLeaks[0].Suppressed = "a name"
	some.PossibleLeaks[2].Known, some.PossibleLeaks[2].KnownBytes = 1, 1000
	none := found(small(27))
	none.PossibleLeaks[0].Known, none.PossibleLeaks[0].KnownBytes = 1, 20
	none.UnallocatedFreesTotal = 2
	none.UnallocatedFrees = []leak.Wrong{{Wrong: "double", Fingerprint: "00000000000000cc", Kind: "slab", Count: 2, Suppressed: "a name"}}
	second := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

	return map[string]*Table{
		"clean": NewTable("hello", "./hello", []Row{{Kernel: "6.1", Release: "6.1.0-56-amd64"}},
			[]Result{{Report: found(), Took: second(9.04)}}, status),
		"found": NewTable("hello", "./hello",
			[]Row{{Kernel: "6.1", Release: "6.1.0-56-amd64"}, {Kernel: "6.12", Release: "6.12.117+deb12-amd64"}},
			[]Result{
				{Outcome: Found, Report: found(small(27), small(28), large), Took: second(12.3456)},
				{Outcome: Found, Report: wrong, Took: second(13)},
			}, status),
		"known": NewTable("hello", "./hello", []Row{{Kernel: "6.1"}, {Kernel: "6.12"}},
			[]Result{{Outcome: Found, Report: some}, {Report: none}}, status),
		// All that can go wrong, and names that are out for trouble.
		"odd": NewTable("hello", "./hello",
			[]Row{
				{Kernel: "5.10", Release: "5.10.0-46-amd64", Log: "reports/5.10.build.log"},
				{Kernel: "6.1", Release: "6.1.0-56-amd64", Log: "reports/6.1.oops.txt"},
				{Kernel: "6.1/i386"}, {Kernel: "6.12", Release: "6.12.117+deb12-amd64"}, {Kernel: "7.3", Release: "7.3.4+deb13-amd64"}, {Kernel: "7.4"},
			},
			[]Result{
				{Outcome: NotBuilt, Err: errors.New("a.c:1: error: '\x1b[2J|<b>*'\nand more"), Took: second(1)},
				{Outcome: Crashed, Err: errors.New("the kernel crashed in the machine: BUG: kernel NULL pointer dereference")},
				{Outcome: Failed, Err: errors.New("no such kernel")},
				{Outcome: Incomplete, Report: lost, Remark: "the workload ended with: exit status 1"},
				{Outcome: Found, Report: found(leak.Leak{Fingerprint: "00000000000000ee", Kind: "slab", Count: 1, Bytes: 1})},
				{Outcome: Interrupted},
			}, status),
		"nothing": NewTable("", "./hello", []Row{{Kernel: "6.1"}}, []Result{{Outcome: Failed, Err: errors.New("no such kernel")}}, status),
	}
}

func TestGolden(t *testing.T) {
	for name, table := range tables() {
		for _, format := range Formats {
			t.Run(name+"."+format.Name, func(t *testing.T) {
				var b bytes.Buffer
				if err := format.Write(&b, table); err != nil {
					t.Fatal(err)
				}
				golden := filepath.Join("testdata", name+"."+format.Name)
				if *update {
					if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), b.String()); d != "" {
					t.Errorf("-want +got:\n%s", d)
				}
				if strings.ContainsAny(b.String(), "\x1b\r") {
					t.Error("something that drives the terminal came through")
				}
			})
		}
	}
}

// Programs read what was written.
func TestJSON(t *testing.T) {
	want := tables()["odd"]
	var b bytes.Buffer
	if err := writeJSON(&b, want); err != nil {
		t.Fatal(err)
	}
	var got Table
	d := json.NewDecoder(&b)
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, &got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if err := got.Result.UnmarshalText([]byte("good")); err == nil {
		t.Error("an outcome that there is not was taken")
	}
}

// The worst is by certainty: see Outcome.
func TestWorst(t *testing.T) {
	order := []Outcome{Clean, Found, Incomplete, Failed, NotBuilt, Interrupted, Hung, Crashed}
	for i, a := range order {
		for j, b := range order {
			table := NewTable("", "", make([]Row, 2), []Result{{Outcome: a}, {Outcome: b}}, status)
			if want := order[max(i, j)]; table.Result != want || table.Status != status(want) {
				t.Errorf("%v and %v: %v", a, b, table.Result)
			}
		}
	}
}

func TestCheckKernels(t *testing.T) {
	for _, test := range []struct {
		kernels []string
		ok      bool
	}{
		{four, true},
		{[]string{"6.1-cloud", "6.1/i386", "6.12.117+deb12-amd64", "6.1.0-56-amd64"}, true},
		{[]string{"6.1", "6.12", "6.1"}, false},
		{[]string{""}, false},
		{[]string{"../6.1"}, false},
		{[]string{"6.1/../../etc"}, false},
		{[]string{"6.1 "}, false},
		{[]string{"latest"}, false},
	} {
		if err := CheckKernels(test.kernels); (err == nil) != test.ok {
			t.Errorf("%q: %v", test.kernels, err)
		}
	}
}
