//go:build guest

package conformance

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"kedr/internal/leak"
	"kedr/test/conformance/expect"
)

// version is that of the kernel that runs.
func version(t *testing.T) expect.Version {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	v, err := expect.ParseVersion(unix.ByteSliceToString(u.Release[:]))
	v.Bare = v.Bare || slices.Contains(flags, "--btf=none")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// expected is what a module's source says that kedr must report.
func expected(t *testing.T, name string) *expect.File {
	t.Helper()
	f, err := expect.Read(source(name), version(t))
	if err != nil {
		t.Fatal(err)
	}
	// A real-time kernel runs interrupts, soft and hard, in threads.
	if realTime(t) {
		for i := range f.Finds {
			f.Finds[i].IRQ = false
		}
	}
	return f
}

// realTime says whether the kernel is one with PREEMPT_RT.
func realTime(t *testing.T) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return strings.Contains(unix.ByteSliceToString(u.Version[:]), "PREEMPT_RT")
}

// check compares a report with its source, loads times over: nothing may be
// missing, nothing more be there.
func check(t *testing.T, r *leak.Report, f *expect.File, loads uint64) {
	t.Helper()
	if r.LostEvents != 0 || len(r.Lost) != 0 {
		t.Errorf("%s: events were lost: %+v", f.Name, r.Lost)
	}
	unwatched := make([]string, 0, len(r.Unwatched))
	for _, u := range r.Unwatched {
		unwatched = append(unwatched, u.Function)
	}
	if !slices.Equal(unwatched, append([]string{}, f.Unwatched...)) {
		t.Errorf("%s: not watched: %+v", f.Name, r.Unwatched)
	}
	got := expect.Total{
		Allocations: r.Allocations, Leaks: r.PossibleLeaksTotal,
		WrongFrees: r.UnallocatedFreesTotal + r.MismatchedTotal,
	}
	want := expect.Total{Allocations: f.Total.Allocations * loads, Leaks: f.Total.Leaks * loads, WrongFrees: f.Total.WrongFrees * loads}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("%s: totals differ (-want +got):\n%s", f.Name, d)
	}
	e := events(r)
	if d := gocmp.Diff(count(f.Finds, f.Name, loads), count(finds(e, f), f.Name, 1)); d != "" {
		t.Errorf("%s: what was found, by line (-want +got):\n%s", f.Name, d)
	}
	for _, x := range f.Finds {
		for _, e := range e {
			if x.Stack == nil || e.wrong != x.Wrong || e.kind != x.Kind || line(e.stack, f.Name) != x.Line {
				continue
			}
			// "f*" is f or a copy that the compiler made of it, as f.isra.0.
			names := functions(e.stack, f.Name)
			if len(names) < len(x.Stack) || !slices.EqualFunc(names[:len(x.Stack)], x.Stack, func(name, want string) bool {
				stem, copies := strings.CutSuffix(want, "*")
				return name == want || copies && strings.HasPrefix(name, stem)
			}) {
				t.Errorf("%s:%d: the stack is %v, want %v", f.Name, x.Line, names, x.Stack)
			}
		}
	}
}

// event is a leak or a wrong release.
type event struct {
	wrong, kind string
	sizes       []uint64
	count       uint64
	irq         bool
	stack       []leak.Frame
}

func events(r *leak.Report) []event {
	var list []event
	for _, l := range r.PossibleLeaks {
		e := event{kind: l.Kind, irq: l.IRQ, stack: l.Stack}
		for _, o := range l.Objects {
			e.sizes = append(e.sizes, o.Size)
		}
		list = append(list, e)
	}
	for _, w := range r.UnallocatedFrees {
		list = append(list, event{wrong: w.Wrong, kind: w.Kind, count: w.Count, irq: w.IRQ, stack: w.Stack})
	}
	return list
}

func finds(list []event, f *expect.File) []expect.Find {
	var out []expect.Find
	for _, e := range list {
		x := expect.Find{Line: line(e.stack, f.Name), Wrong: e.wrong, Kind: e.kind, Count: 1, IRQ: e.irq}
		x.Any = slices.ContainsFunc(f.Finds, func(w expect.Find) bool { return w.Any && w.Line == x.Line })
		if e.wrong != "" {
			x.Count = e.count
			out = append(out, x)
		}
		for _, s := range e.sizes {
			x.Size = s
			out = append(out, x)
		}
	}
	return out
}

// count makes sorted lines of finds, those that are the same put together.
func count(list []expect.Find, source string, loads uint64) []string {
	list = slices.Clone(list)
	key := func(x expect.Find) string {
		what := cmp.Or(x.Wrong, "leak")
		if x.IRQ {
			what += " irq"
		}
		switch {
		case x.Any:
			what += " *"
		case x.Wrong == "":
			what += fmt.Sprintf(" %d", x.Size)
		}
		return fmt.Sprintf("%s:%d %s %s", source, x.Line, what, x.Kind)
	}
	slices.SortStableFunc(list, func(a, b expect.Find) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(key(a), key(b)))
	})
	var out []string
	for i := 0; i < len(list); {
		k, n := key(list[i]), uint64(0)
		for ; i < len(list) && key(list[i]) == k; i++ {
			n += list[i].Count
		}
		out = append(out, fmt.Sprintf("%s x%d", k, n*loads))
	}
	return out
}

// line is that of the innermost frame in the module's own source, headers left
// out; 0 where the stack has none.
func line(frames []leak.Frame, source string) int {
	for _, f := range frames {
		if filepath.Base(f.File) == source {
			return f.Line
		}
	}
	return 0
}

// functions lists a stack's functions from the first that the source has a line of.
func functions(frames []leak.Frame, source string) []string {
	var names []string
	for _, f := range frames {
		if filepath.Base(f.File) == source || len(names) > 0 {
			names = append(names, f.Function)
		}
	}
	return names
}
