package matrix

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"kedr/internal/distro"
	"kedr/internal/leak"
	"kedr/internal/session"
)

// Schema is the version of the JSON document.
const Schema = 1

// Table is what a matrix ends in.
type Table struct {
	Schema   int       `json:"schema"`
	Module   string    `json:"module"` // as the kernel has it; "" if it was built for none
	Source   string    `json:"source"` // the directory, as it was given
	Result   Outcome   `json:"result"` // the worst
	Status   int       `json:"status"` // the exit status for that
	Kernels  []Row     `json:"kernels"`
	Findings []Finding `json:"findings"`
}

// Row is one kernel's.
type Row struct {
	Kernel  string  `json:"kernel"` // as it was asked for
	Release string  `json:"release"`
	Result  Outcome `json:"result"`
	Status  int     `json:"status"` // the exit status of kedr run
	// Measured says that there is a report, of which these are the figures.
	Measured       bool   `json:"measured"`
	Allocations    uint64 `json:"allocations"`
	AllocatedBytes uint64 `json:"allocated_bytes"`
	// What counts of what was found.
	PossibleLeaks uint64 `json:"possible_leaks"`
	LeakedBytes   uint64 `json:"leaked_bytes"`
	WrongReleases uint64 `json:"wrong_releases"`
	// Findings that don't count: objects and releases.
	Suppressed uint64 `json:"suppressed,omitempty"`
	Known      uint64 `json:"known,omitempty"`

	Seconds float64 `json:"seconds"` // to build and to run
	// Error is why there is no report, or what is wrong with it: a line.
	Error string `json:"error,omitempty"`
	// Log is the file that has more on Error.
	Log string `json:"log,omitempty"`
}

// Finding is a leak or a wrong release, with what there was of it on each kernel.
type Finding struct {
	Fingerprint string `json:"fingerprint"`
	Found       string `json:"found"` // "leak", or the kind of the wrong release
	Kind        string `json:"kind"`  // of the allocation, as the catalog has it
	Function    string `json:"function"`
	File        string `json:"file"`
	// Lines of Function where it happens, on any kernel.
	Lines []int `json:"lines"`
	// Kernels has how often it was found, by kernel. A kernel without it is not among
	// them; nor is one that has no report.
	Kernels map[string]Count `json:"kernels"`
}

// Count is of one finding on one kernel.
type Count struct {
	Count uint64 `json:"count"` // objects, or releases
	Bytes uint64 `json:"bytes"` // of the objects
}

// NewTable makes the table of results. What only who did the steps knows is in rows
// already: Kernel, Release, Log. status is the exit status that an outcome means.
func NewTable(module, source string, rows []Row, results []Result, status func(Outcome) int) *Table {
	t := &Table{Schema: Schema, Module: module, Source: source, Kernels: rows, Findings: []Finding{}}
	at := make(map[string]int)
	for i, res := range results {
		row := &t.Kernels[i]
		row.Result, row.Status = res.Outcome, status(res.Outcome)
		row.Seconds = res.Took.Round(time.Millisecond).Seconds()
		if res.Err != nil {
			row.Error = line(res.Err.Error())
		} else {
			row.Error = line(res.Remark)
		}
		t.Result = max(t.Result, res.Outcome)
		if r := res.Report; r != nil {
			row.measure(r)
			t.find(at, row.Kernel, r)
		}
	}
	t.Status = status(t.Result)
	slices.SortStableFunc(t.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.bytes(), a.bytes()), cmp.Compare(a.Function, b.Function), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return t
}

func (r *Row) measure(rep *leak.Report) {
	r.Measured = true
	r.Allocations, r.AllocatedBytes = rep.Allocations, rep.AllocatedBytes
	a := rep.Account()
	r.PossibleLeaks, r.LeakedBytes = a.Counted.Leaks, a.Counted.Bytes
	r.WrongReleases = a.Counted.Unallocated + a.Counted.Mismatched
	r.Suppressed, r.Known = a.Suppressed.Total(), a.Known.Total()
	if r.Result != Incomplete {
		return
	}
	var why []string
	for _, l := range rep.Lost {
		why = append(why, fmt.Sprintf("%d event(s) of %s lost: %s", l.Count, l.Function, l.Reason))
	}
	for _, u := range rep.Unwatched {
		why = append(why, fmt.Sprintf("%s was not watched: %s", u.Function, u.Reason))
	}
	if len(why) > 1 {
		why[0] += fmt.Sprintf(" (and %d more)", len(why)-1)
	}
	if len(why) > 0 {
		r.Error = strings.TrimPrefix(r.Error+"; "+line(why[0]), "; ")
	}
}

func (t *Table) find(at map[string]int, kernel string, r *leak.Report) {
	add := func(fingerprint, found, kind string, stack []leak.Frame, count, bytes uint64) {
		i, ok := at[fingerprint]
		if !ok {
			i = len(t.Findings)
			at[fingerprint] = i
			t.Findings = append(t.Findings, Finding{Fingerprint: fingerprint, Found: found, Kind: kind, Lines: []int{}, Kernels: make(map[string]Count)})
		}
		f := &t.Findings[i]
		if fr, ok := leak.Place(stack, r.Target.Name); ok {
			if f.Function == "" || f.File == "" {
				f.Function, f.File = fr.Function, filepath.Base(fr.File)
				if fr.File == "" {
					f.File = ""
				}
			}
			if n, ok := slices.BinarySearch(f.Lines, fr.Line); !ok && fr.Line > 0 {
				f.Lines = slices.Insert(f.Lines, n, fr.Line)
			}
		}
		c := f.Kernels[kernel]
		f.Kernels[kernel] = Count{c.Count + count, c.Bytes + bytes}
	}
	for _, l := range r.PossibleLeaks {
		if n := l.New(); n > 0 {
			add(l.Fingerprint, "leak", l.Kind, l.Stack, n, l.NewBytes())
		}
	}
	for _, w := range r.UnallocatedFrees {
		if n := w.New(); n > 0 {
			add(w.Fingerprint, w.Wrong, w.Kind, w.Stack, n, 0)
		}
	}
}

// rank has leaks come first.
func (f *Finding) rank() int {
	if f.Found == "leak" {
		return 0
	}
	return 1
}

func (f *Finding) bytes() uint64 {
	var most uint64
	for _, c := range f.Kernels {
		most = max(most, c.Bytes)
	}
	return most
}

// Where names the place of a finding in the source.
func (f *Finding) Where() string {
	where := f.Function
	if where == "" {
		where = "an unknown place"
	}
	if f.File == "" {
		return line(where)
	}
	where += ", " + f.File
	for i, n := range f.Lines {
		where += fmt.Sprintf("%c%d", ":,"[min(i, 1)], n)
	}
	return line(where)
}

// What names what was found.
func (f *Finding) What() string {
	switch f.Found {
	case "leak":
		return "leak"
	case session.Double:
		return "double free"
	case session.Mismatched:
		return "mismatched release"
	}
	return "unallocated free"
}

// line makes a text one printable line.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError:
			return -1
		}
		return r
	}, strings.TrimSpace(s))
}

// Verdict says in one line which kernels ended how.
func (t *Table) Verdict() string {
	name := t.Module
	if name == "" {
		name = t.Source
	}
	var parts []string
	for o := Crashed; o >= Clean; o-- {
		var on []string
		for _, r := range t.Kernels {
			if r.Result == o {
				on = append(on, r.Kernel)
			}
		}
		if len(on) > 0 {
			parts = append(parts, o.String()+" on "+strings.Join(on, ", "))
		}
	}
	return line(name + ": " + strings.Join(parts, "; "))
}

// FileName is how the files of a kernel's results begin.
func FileName(kernel string) string { return strings.ReplaceAll(kernel, "/", "-") }

// CheckKernels finds mistakes in a list of kernels' versions, which also name files.
func CheckKernels(kernels []string) error {
	for i, k := range kernels {
		if !distro.IsVersion(k) {
			return fmt.Errorf("%q is no version of a kernel, as 6.1, 6.1-cloud, or a full release", k)
		}
		if slices.Contains(kernels[:i], k) {
			return fmt.Errorf("%s is there twice", k)
		}
	}
	return nil
}
