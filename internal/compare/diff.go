package compare

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"kedr/internal/leak"
)

// Schema is the version of the JSON document.
const Schema = 1

// What became of a finding.
const (
	New       = "new"
	Grown     = "grown" // there are more of it in one load than there were
	Unchanged = "unchanged"
	Shrunk    = "shrunk"
	Fixed     = "fixed"
)

// States lists them, in the order in which they are told.
var States = []string{New, Grown, Unchanged, Shrunk, Fixed}

// Diff is what one file of reports has that another has not.
type Diff struct {
	Schema  int      `json:"schema"`
	Old     string   `json:"old"` // the files
	New     string   `json:"new"`
	Targets []Target `json:"targets"`
	// Notes are remarks on the files as wholes, a line each.
	Notes []string `json:"notes"`
}

// Target is the difference for one of the modules in the new file.
type Target struct {
	Name       string    `json:"name"`
	OldKernel  string    `json:"old_kernel"`
	NewKernel  string    `json:"new_kernel"`
	Findings   []Finding `json:"findings"`
	Suppressed uint64    `json:"suppressed"` // findings of the new report that were left out
	// Uncertain says why neither what is new nor what is fixed is certain, a line each.
	Uncertain []string `json:"uncertain"`
}

// Finding is one fingerprint. Counts are of the load that had the most; bytes are 0 for
// releases.
type Finding struct {
	State       string       `json:"state"`
	Fingerprint string       `json:"fingerprint"`
	What        string       `json:"what"` // "leak", "unallocated", "double" or "mismatched"
	Kind        string       `json:"kind"`
	Function    string       `json:"function"`
	OldCount    uint64       `json:"old_count"`
	NewCount    uint64       `json:"new_count"`
	OldBytes    uint64       `json:"old_bytes"`
	NewBytes    uint64       `json:"new_bytes"`
	Stack       []leak.Frame `json:"stack"` // in the new report, if it is there
}

// Count says how many findings are in one of these states.
func (t *Target) Count(states ...string) int {
	n := 0
	for i := range t.Findings {
		if slices.Contains(states, t.Findings[i].State) {
			n++
		}
	}
	return n
}

// Worse says whether there is something new, or more of something.
func (d *Diff) Worse() bool {
	return slices.ContainsFunc(d.Targets, func(t Target) bool { return t.Count(New, Grown) > 0 })
}

// Uncertain says whether a report is incomplete.
func (d *Diff) Uncertain() bool {
	return slices.ContainsFunc(d.Targets, func(t Target) bool { return len(t.Uncertain) > 0 })
}

// Reports compares the reports of two files, target by target. It is an error if they
// have none in common.
func Reports(oldFile, newFile string, before, after []*leak.Report) (*Diff, error) {
	d := &Diff{Schema: Schema, Old: oldFile, New: newFile, Targets: []Target{}, Notes: []string{}}
	common := false
	for _, r := range after {
		old := byName(before, r.Target.Name)
		if old == nil {
			d.Notes = append(d.Notes, fmt.Sprintf("%s is not in %s: all of it is new", r.Target.Name, oldFile))
			old = &leak.Report{Loads: make([]leak.Load, 1)}
		} else {
			common = true
		}
		d.Targets = append(d.Targets, compare(oldFile, newFile, old, r))
	}
	for _, r := range before {
		if byName(after, r.Target.Name) == nil {
			d.Notes = append(d.Notes, fmt.Sprintf("%s is not in %s: it was not compared", r.Target.Name, newFile))
		}
	}
	if !common {
		return nil, fmt.Errorf("%s is about %s, and %s about %s: only reports of the same module can be compared",
			oldFile, names(before), newFile, names(after))
	}
	return d, nil
}

// byName finds a target's report. Where a file has several, what was appended last counts.
func byName(reports []*leak.Report, name string) *leak.Report {
	for _, r := range slices.Backward(reports) {
		if r.Target.Name == name {
			return r
		}
	}
	return nil
}

func names(reports []*leak.Report) string {
	var list []string
	for _, r := range reports {
		list = append(list, r.Target.Name)
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ", ")
}

func compare(oldFile, newFile string, before, after *leak.Report) Target {
	t := Target{
		Name: after.Target.Name, OldKernel: before.Kernel.Release, NewKernel: after.Kernel.Release,
		Findings: []Finding{}, Uncertain: []string{},
	}
	doubt := func(file string, r *leak.Report) {
		switch {
		case r.Incomplete():
			t.Uncertain = append(t.Uncertain, file+" is incomplete: events were lost, or functions not watched")
		case len(r.Loads) == 0:
			t.Uncertain = append(t.Uncertain, "in "+file+" the module was never loaded")
		}
	}
	doubt(oldFile, before)
	doubt(newFile, after)
	// What is suppressed now is neither new nor fixed; what was then is known all the same.
	was, all, is := tally(before, everything), tally(after, everything), tally(after, suppressed)
	t.Suppressed = uint64(len(all.by) - len(is.by))
	for _, fp := range is.order {
		f := is.by[fp].first
		m := is.by[fp].most()
		f.NewCount, f.NewBytes, f.State = m.count, m.bytes, New
		if o := was.by[fp]; o != nil {
			m := o.most()
			f.OldCount, f.OldBytes = m.count, m.bytes
			switch cmp.Compare(f.NewCount, f.OldCount) {
			case 1:
				f.State = Grown
			case 0:
				f.State = Unchanged
			case -1:
				f.State = Shrunk
			}
		}
		t.Findings = append(t.Findings, f)
	}
	for _, fp := range was.order {
		if all.by[fp] == nil {
			f := was.by[fp].first
			m := was.by[fp].most()
			f.OldCount, f.OldBytes, f.State = m.count, m.bytes, Fixed
			t.Findings = append(t.Findings, f)
		}
	}
	slices.SortStableFunc(t.Findings, func(a, b Finding) int {
		return cmp.Compare(slices.Index(States, a.State), slices.Index(States, b.State))
	})
	return t
}
