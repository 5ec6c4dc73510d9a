//go:build guest

package conformance

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/leak"
)

// expectation is what a module's source says that kedr must report.
type expectation struct {
	leaks, wrongs                 []finding
	allocations, leaked, wrongsIn uint64
}

// finding is a leak or a wrong free by where it is; it is compared whole.
type finding struct {
	Where string // "slab.c:12"
	Size  uint64
	Kind  string
	Count uint64
	IRQ   bool
	Stack string // "inner,outer"; compared only where the source says so
}

var (
	leakRE  = regexp.MustCompile(`// LEAK (\d+) (\w+)(?: x(\d+))?( irq)?(?: stack=(\S+))?`)
	wrongRE = regexp.MustCompile(`// WRONG-FREE (\w+)(?: x(\d+))?`)
	totalRE = regexp.MustCompile(`// TOTAL allocations=(\d+) leaks=(\d+) wrong-frees=(\d+)`)
)

func number(t *testing.T, s string) uint64 {
	t.Helper()
	if s == "" {
		return 1
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func expected(t *testing.T, source string) expectation {
	t.Helper()
	f, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var e expectation
	total := false
	sc := bufio.NewScanner(f)
	for line := 1; sc.Scan(); line++ {
		where := fmt.Sprintf("%s:%d", filepath.Base(source), line)
		if m := leakRE.FindStringSubmatch(sc.Text()); m != nil {
			e.leaks = append(e.leaks, finding{where, number(t, m[1]), m[2], number(t, m[3]), m[4] != "", m[5]})
		}
		if m := wrongRE.FindStringSubmatch(sc.Text()); m != nil {
			e.wrongs = append(e.wrongs, finding{Where: where, Kind: m[1], Count: number(t, m[2])})
		}
		if m := totalRE.FindStringSubmatch(sc.Text()); m != nil {
			total = true
			e.allocations, e.leaked, e.wrongsIn = number(t, m[1]), number(t, m[2]), number(t, m[3])
		}
	}
	if !total {
		t.Fatalf("%s has no TOTAL line", source)
	}
	return e
}

// where is the innermost frame in the module's own source, headers left out.
func where(source string, frames []leak.Frame) string {
	for _, f := range frames {
		if filepath.Base(f.File) == source {
			return fmt.Sprintf("%s:%d", source, f.Line)
		}
	}
	return fmt.Sprintf("nowhere: %+v", frames)
}

// functions lists a stack's functions from the first that the source has a line of.
func functions(source string, frames []leak.Frame) []string {
	var names []string
	for _, f := range frames {
		if filepath.Base(f.File) == source || len(names) > 0 {
			names = append(names, f.Function)
		}
	}
	return names
}

// check compares a report with its source's expectations, loads times over.
func check(t *testing.T, r *leak.Report, source string, e expectation, loads uint64) {
	t.Helper()
	base := filepath.Base(source)
	if r.LostEvents != 0 || len(r.Lost) != 0 {
		t.Errorf("%s: events were lost: %+v", base, r.Lost)
	}
	if len(r.Unwatched) != 0 {
		t.Errorf("%s: not watched: %+v", base, r.Unwatched)
	}
	got := map[string]uint64{"allocations": r.Allocations, "leaks": r.PossibleLeaksTotal, "wrong frees": r.UnallocatedFreesTotal}
	want := map[string]uint64{"allocations": e.allocations * loads, "leaks": e.leaked * loads, "wrong frees": e.wrongsIn * loads}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: totals differ (-want +got):\n%s", base, d)
	}
	var leaks, wrongs []finding
	for _, l := range r.PossibleLeaks {
		f := finding{where(base, l.Stack), l.Size, l.Kind, l.Count, l.IRQ, ""}
		i := slices.IndexFunc(e.leaks, func(w finding) bool { return w.Where == f.Where })
		if i >= 0 && e.leaks[i].Stack != "" {
			want := strings.Split(e.leaks[i].Stack, ",")
			// "f*" is f or a copy that the compiler made of it, as f.isra.0.
			if names := functions(base, l.Stack); len(names) >= len(want) && slices.EqualFunc(names[:len(want)], want, func(name, want string) bool {
				stem, copies := strings.CutSuffix(want, "*")
				return name == want || copies && strings.HasPrefix(name, stem)
			}) {
				f.Stack = e.leaks[i].Stack
			} else {
				f.Stack = strings.Join(names, ",")
			}
		}
		leaks = append(leaks, f)
	}
	for _, w := range r.UnallocatedFrees {
		wrongs = append(wrongs, finding{Where: where(base, w.Stack), Kind: w.Kind, Count: w.Count})
	}
	var wantLeaks, wantWrongs []finding
	for range loads {
		wantLeaks = append(wantLeaks, e.leaks...)
		wantWrongs = append(wantWrongs, e.wrongs...)
	}
	if d := cmp.Diff(order(wantLeaks), order(leaks)); d != "" {
		t.Errorf("%s: leaks differ (-want +got):\n%s", base, d)
	}
	if d := cmp.Diff(order(wantWrongs), order(wrongs)); d != "" {
		t.Errorf("%s: wrong frees differ (-want +got):\n%s", base, d)
	}
}

func order(f []finding) []finding {
	slices.SortFunc(f, func(a, b finding) int { return strings.Compare(fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b)) })
	return f
}
