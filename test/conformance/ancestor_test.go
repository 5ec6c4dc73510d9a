//go:build guest

package conformance

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"kedr/internal/leak"
	"kedr/test/conformance/expect"
)

// What the ancestor's own tests did, and the figures that it gave, in the order
// allocations, possible leaks, unallocated frees.

// hasFiles says whether a session has files: kernels without BTF have no iterators.
func hasFiles() bool { return hasTypes() && !slices.Contains(flags, "--btf=none") }

// hasTypes says whether the kernel has BTF.
func hasTypes() bool {
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	return err == nil
}

// totals are those of each load, as the file info has them or, where there is none, the
// report.
func totals(t *testing.T, module string) []string {
	t.Helper()
	var list []string
	if !hasFiles() {
		for _, l := range parse(t, kedr(t, "report", "--format", "json", module)).Loads {
			list = append(list, fmt.Sprintf("%d/%d/%d", l.Allocations, l.PossibleLeaks, l.UnallocatedFrees))
		}
		return list
	}
	for _, m := range regexp.MustCompile(`(?m)^Allocations: (\d+)\nPossible leaks: (\d+)\nUnallocated frees: (\d+)$`).
		FindAllStringSubmatch(must(t, "cat", sessionFiles+"/"+module+"/info"), -1) {
		list = append(list, strings.Join(m[1:], "/"))
	}
	return list
}

// sessionFile reads a file of a session; where there are none, it is empty.
func sessionFile(t *testing.T, module, name string) string {
	t.Helper()
	if !hasFiles() {
		return ""
	}
	return must(t, "cat", sessionFiles+"/"+module+"/"+name)
}

// want checks the totals of the last load.
func want(t *testing.T, when, module, figures string) {
	t.Helper()
	list := totals(t, module)
	if len(list) == 0 || list[len(list)-1] != figures {
		t.Errorf("%s: %s has %v, want %s", when, module, list, figures)
	}
}

// start starts a session for modules, which ends with the test.
func start(t *testing.T, names ...string) {
	t.Helper()
	var files []string
	for _, name := range names {
		files = append(files, ko(name))
	}
	must(t, program, "start", strings.Join(files, ","))
	ends(t, names...)
}

// addresses are those that leaker.ko has forgotten, in decimal.
func addresses(t *testing.T) string {
	return strings.TrimSpace(must(t, "cat", "/sys/module/leaker/parameters/forgotten"))
}

// shown are the addresses in a report, as addresses has them, sorted.
func shown(r *leak.Report) string {
	var list []string
	for _, l := range r.PossibleLeaks {
		for _, o := range l.Objects {
			list = append(list, fmt.Sprint(uint64(o.Address)))
		}
	}
	for _, w := range r.UnallocatedFrees {
		list = append(list, fmt.Sprint(uint64(w.Address)))
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

func sorted(list string) string {
	s := strings.Split(list, ",")
	slices.Sort(s)
	return strings.Join(s, ",")
}

// TestForgotten: one module forgets what another gives back, four times over.
func TestForgotten(t *testing.T) {
	t.Run("leaker", func(t *testing.T) {
		start(t, "leaker")
		for range 4 {
			must(t, "insmod", ko("leaker"))
			forgotten := addresses(t)
			must(t, "rmmod", "leaker")
			want(t, "unloaded", "leaker", "16/4/0")
			r := parse(t, kedr(t, "report", "--format", "json", "leaker"))
			if d := gocmp.Diff(sorted(forgotten), shown(r)); d != "" {
				t.Errorf("addresses: -want +got:\n%s", d)
			}
			if s := sessionFile(t, "leaker", "unallocated_frees"); s != "" {
				t.Errorf("unallocated frees:\n%s", s)
			}
			// Given back by whoever, it is no leak any more.
			must(t, "insmod", ko("cleaner"), "forgotten="+forgotten)
			must(t, "rmmod", "cleaner")
			want(t, "cleaned", "leaker", "16/0/0")
		}
	})
	t.Run("cleaner", func(t *testing.T) {
		start(t, "cleaner")
		for i := range 4 {
			must(t, "insmod", ko("leaker"))
			forgotten := addresses(t)
			must(t, "rmmod", "leaker")
			must(t, "insmod", ko("cleaner"), "forgotten="+forgotten)
			must(t, "rmmod", "cleaner")
			want(t, "unloaded", "cleaner", "0/0/4")
			r := parse(t, kedr(t, "report", "--format", "json", "cleaner"))
			if i == 0 {
				check(t, r, expected(t, "cleaner"), 1)
				if d := gocmp.Diff(sorted(forgotten), shown(r)); d != "" {
					t.Errorf("addresses: -want +got:\n%s", d)
				}
			}
			if s := sessionFile(t, "cleaner", "possible_leaks"); s != "" {
				t.Errorf("possible leaks:\n%s", s)
			}
		}
	})
	t.Run("both", func(t *testing.T) {
		start(t, "leaker", "cleaner")
		must(t, "insmod", ko("leaker"))
		forgotten := addresses(t)
		must(t, "rmmod", "leaker")
		must(t, "insmod", ko("cleaner"), "forgotten="+forgotten)
		must(t, "rmmod", "cleaner")
		want(t, "unloaded", "leaker", "16/0/0")
		want(t, "unloaded", "cleaner", "0/0/0")
	})
}

// TestFlush: the files are current at all times. What the ancestor showed after a
// flush is there without.
func TestFlush(t *testing.T) {
	start(t, "chardev")
	must(t, "insmod", ko("chardev"))
	want(t, "loaded", "chardev", "1/1/0")
	write(t, 0)
	want(t, "one opened", "chardev", "2/2/0")
	write(t, 0)
	want(t, "opened again", "chardev", "2/2/0")
	write(t, 1)
	want(t, "both opened", "chardev", "3/3/0")
	must(t, "rmmod", "chardev")
	want(t, "unloaded", "chardev", "3/0/0")
	must(t, "insmod", ko("chardev"))
	want(t, "loaded again", "chardev", "1/1/0")
	write(t, 1)
	want(t, "loaded again, one opened", "chardev", "2/2/0")
	must(t, "rmmod", "chardev")
	want(t, "unloaded again", "chardev", "2/0/0")
}

// TestClear: what is known is forgotten, and its release is then one of something
// unknown.
func TestClear(t *testing.T) {
	start(t, "chardev")
	must(t, "insmod", ko("chardev"))
	clear := func() { must(t, program, "clear") }
	clear()
	want(t, "loaded, cleared", "chardev", "0/0/0")
	write(t, 0)
	want(t, "one opened", "chardev", "1/1/0")
	clear()
	want(t, "cleared", "chardev", "0/0/0")
	clear()
	want(t, "cleared twice", "chardev", "0/0/0")
	write(t, 1)
	want(t, "the other opened", "chardev", "1/1/0")
	must(t, "rmmod", "chardev")
	want(t, "unloaded", "chardev", "1/0/2")
	clear()
	if list := totals(t, "chardev"); len(list) > 0 && list[len(list)-1] != "0/0/0" {
		t.Errorf("cleared when unloaded: %v", list)
	}
	must(t, "insmod", ko("chardev"))
	write(t, 1)
	want(t, "loaded again, one opened", "chardev", "2/2/0")
	clear()
	want(t, "cleared at last", "chardev", "0/0/0")
	must(t, "rmmod", "chardev")
}

func write(t *testing.T, device int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/dev/kedr_chardev%d", device), []byte("text"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestGroups: one record a call stack, with the number of those that are not shown.
func TestGroups(t *testing.T) {
	start(t, "groups")
	must(t, "insmod", ko("groups"))
	must(t, "rmmod", "groups")
	want(t, "unloaded", "groups", "7/6/3")
	if !hasFiles() {
		return // the report is held against the source by TestRun
	}
	leaks := sessionFile(t, "groups", "possible_leaks")
	if n := strings.Count(leaks, "; stack trace of the allocation:\n"); n != 3 ||
		strings.Count(leaks, "\n+3 more allocation(s) with the same call stack.\n") != 1 {
		t.Errorf("%d records of leaks:\n%s", n, leaks)
	}
	wrong := sessionFile(t, "groups", "unallocated_frees")
	if n := strings.Count(wrong, "; stack trace of the deallocation:\n"); n != 1 ||
		strings.Count(wrong, "\n+2 more deallocation(s) with the same call stack.\n") != 1 {
		t.Errorf("%d records of wrong frees:\n%s", n, wrong)
	}
}

// none is what a module must yield that was watched beside another.
func none(name string, allocations uint64) *expect.File {
	return &expect.File{Name: name + ".c", Total: expect.Total{Allocations: allocations}}
}
