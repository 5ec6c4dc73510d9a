package compare

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/leak"
	"kedr/internal/session"
)

// item is a leak, or with what a release, of n objects of 10 bytes each.
type item struct {
	fingerprint string
	load        uint32
	n           uint64
	what        string
	suppressed  string
}

func report(target string, items ...item) *leak.Report {
	r := &leak.Report{Target: leak.Target{Name: target}, Loads: []leak.Load{{ID: 1}}}
	for _, it := range items {
		switch it.what {
		case "":
			r.PossibleLeaks = append(r.PossibleLeaks, leak.Leak{Fingerprint: it.fingerprint, Load: it.load, Count: it.n, Bytes: 10 * it.n, Kind: "slab", Suppressed: it.suppressed})
			r.PossibleLeaksTotal += it.n
			r.LeakedBytes += 10 * it.n
			continue
		case session.Mismatched:
			r.MismatchedTotal += it.n
		default:
			r.UnallocatedFreesTotal += it.n
		}
		r.UnallocatedFrees = append(r.UnallocatedFrees, leak.Wrong{Wrong: it.what, Fingerprint: it.fingerprint, Load: it.load, Count: it.n, Suppressed: it.suppressed})
	}
	return r
}

// changes are a target's findings in short.
func changes(t Target) map[string][2]uint64 {
	m := make(map[string][2]uint64)
	for _, f := range t.Findings {
		m[f.State+" "+f.Fingerprint] = [2]uint64{f.OldCount, f.NewCount}
	}
	return m
}

func TestReports(t *testing.T) {
	old := report("m",
		item{fingerprint: "same", load: 1, n: 2},
		item{fingerprint: "gone", load: 1, n: 1},
		item{fingerprint: "gone free", load: 1, n: 1, what: session.Double},
		item{fingerprint: "more", load: 1, n: 1},
		item{fingerprint: "fewer", load: 1, n: 5},
		item{fingerprint: "two lines", load: 1, n: 1},
		item{fingerprint: "two lines", load: 1, n: 1},
		item{fingerprint: "was suppressed", load: 1, n: 1, suppressed: "s"},
		item{fingerprint: "is suppressed", load: 1, n: 1},
	)
	now := report("m",
		item{fingerprint: "same", load: 1, n: 2},
		// Another load does as badly: that is the same.
		item{fingerprint: "same", load: 2, n: 2},
		item{fingerprint: "same", load: 3, n: 1},
		item{fingerprint: "more", load: 2, n: 3},
		item{fingerprint: "fewer", load: 1, n: 4},
		item{fingerprint: "two lines", load: 1, n: 2},
		item{fingerprint: "fresh", load: 1, n: 1},
		item{fingerprint: "fresh free", load: 1, n: 7, what: session.Unallocated},
		item{fingerprint: "was suppressed", load: 1, n: 1},
		item{fingerprint: "is suppressed", load: 1, n: 9, suppressed: "s"},
	)
	d, err := Reports("old", "new", []*leak.Report{old}, []*leak.Report{now})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]uint64{
		"new fresh": {0, 1}, "new fresh free": {0, 7}, "grown more": {1, 3}, "shrunk fewer": {5, 4},
		"unchanged same": {2, 2}, "unchanged two lines": {2, 2}, "unchanged was suppressed": {1, 1},
		"fixed gone": {1, 0}, "fixed gone free": {1, 0},
	}
	if diff := cmp.Diff(want, changes(d.Targets[0])); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !d.Worse() || d.Uncertain() || d.Targets[0].Suppressed != 1 {
		t.Errorf("%+v", d)
	}
	last := 0
	for _, f := range d.Targets[0].Findings {
		for i, s := range States {
			if s == f.State {
				if i < last {
					t.Errorf("%s after %s", f.State, States[last])
				}
				last = i
			}
		}
	}
	// With itself there is nothing to tell, and nothing that is worse.
	d, err = Reports("new", "new", []*leak.Report{now}, []*leak.Report{now})
	if err != nil || d.Worse() || d.Targets[0].Count(Unchanged) != len(d.Targets[0].Findings) {
		t.Errorf("%v, %+v", err, d)
	}
}

func TestTargets(t *testing.T) {
	a, b, c := report("a", item{fingerprint: "1", n: 1}), report("b"), report("c", item{fingerprint: "1", n: 1})
	d, err := Reports("old", "new", []*leak.Report{a, b}, []*leak.Report{c, a})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c is not in old: all of it is new", "b is not in new: it was not compared"}, d.Notes); diff != "" {
		t.Error(diff)
	}
	if d.Targets[0].Count(New) != 1 || d.Targets[1].Count(Unchanged) != 1 || d.Uncertain() {
		t.Errorf("%+v", d.Targets)
	}
	_, err = Reports("old", "new", []*leak.Report{a, b, b}, []*leak.Report{c})
	if err == nil || err.Error() != "old is about a, b, and new about c: only reports of the same module can be compared" {
		t.Errorf("error %v", err)
	}
	lost, never := report("a"), report("a")
	lost.LostEvents, never.Loads = 1, nil
	for _, r := range []*leak.Report{lost, never} {
		for _, pair := range [][2]*leak.Report{{r, a}, {a, r}} {
			if d, err := Reports("old", "new", pair[:1], pair[1:]); err != nil || !d.Uncertain() {
				t.Errorf("%v, %+v", err, d)
			}
		}
	}
}

func TestBaseline(t *testing.T) {
	base := NewBaseline("base.json", []*leak.Report{report("m",
		item{fingerprint: "leak", load: 1, n: 3},
		item{fingerprint: "free", load: 1, n: 2, what: session.Unallocated},
		item{fingerprint: "free", load: 2, n: 1, what: session.Unallocated},
		item{fingerprint: "bad", load: 1, n: 1, what: session.Mismatched},
	)})
	tests := []struct {
		items []item
		want  leak.Figures // that count
		known leak.Figures
	}{
		{nil, leak.Figures{}, leak.Figures{}},
		{[]item{{fingerprint: "leak", load: 7, n: 3}}, leak.Figures{}, leak.Figures{Leaks: 3, Bytes: 30, Stacks: 1}},
		{[]item{{fingerprint: "leak", load: 1, n: 4}}, leak.Figures{Leaks: 1, Bytes: 10, Stacks: 1}, leak.Figures{Leaks: 3, Bytes: 30, Stacks: 1}},
		// Two call stacks of one load share what is known; two loads do not.
		{[]item{{fingerprint: "leak", load: 1, n: 2}, {fingerprint: "leak", load: 1, n: 2}}, leak.Figures{Leaks: 1, Bytes: 10, Stacks: 1}, leak.Figures{Leaks: 3, Bytes: 30, Stacks: 2}},
		{[]item{{fingerprint: "leak", load: 1, n: 2}, {fingerprint: "leak", load: 2, n: 2}}, leak.Figures{}, leak.Figures{Leaks: 4, Bytes: 40, Stacks: 2}},
		{[]item{{fingerprint: "other", load: 1, n: 1}}, leak.Figures{Leaks: 1, Bytes: 10, Stacks: 1}, leak.Figures{}},
		// What is suppressed takes nothing of what is known.
		{[]item{{fingerprint: "leak", load: 1, n: 3, suppressed: "s"}, {fingerprint: "leak", load: 1, n: 3}}, leak.Figures{}, leak.Figures{Leaks: 3, Bytes: 30, Stacks: 1}},
		{[]item{{fingerprint: "free", load: 1, n: 3, what: session.Unallocated}, {fingerprint: "bad", load: 1, n: 1, what: session.Mismatched}}, leak.Figures{Unallocated: 1}, leak.Figures{Unallocated: 2, Mismatched: 1}},
	}
	for _, tt := range tests {
		r := report("m", tt.items...)
		base.Apply(r)
		base.Apply(r) // twice is once
		a := r.Account()
		if a.Counted != tt.want || a.Known != tt.known {
			t.Errorf("%+v: counted %+v, known %+v", tt.items, a.Counted, a.Known)
		}
		if r.Clean() != tt.want.None() || r.Baseline != "base.json" || len(r.Notes) > 0 {
			t.Errorf("%+v: %+v", tt.items, r)
		}
	}
	other := report("other", item{fingerprint: "leak", n: 1})
	base.Apply(other)
	base.Apply(other)
	if other.Clean() || len(other.Notes) != 1 || !strings.Contains(other.Notes[0], "has no report of other: all is new") {
		t.Errorf("%+v", other)
	}
	lost := report("m")
	lost.LostEvents = 1
	r := report("m", item{fingerprint: "leak", n: 1})
	NewBaseline("b", []*leak.Report{lost}).Apply(r)
	if r.Clean() || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "is incomplete") {
		t.Errorf("%+v", r)
	}
}

func TestPart(t *testing.T) {
	for _, tt := range [][4]uint64{{10, 0, 3, 0}, {10, 3, 3, 10}, {10, 0, 0, 10}, {10, 1, 3, 3}, {math.MaxUint64, math.MaxUint64 - 1, math.MaxUint64, math.MaxUint64 - 1}} {
		if got := part(tt[0], tt[1], tt[2]); got != tt[3] {
			t.Errorf("part(%d, %d, %d) = %d", tt[0], tt[1], tt[2], got)
		}
	}
}
