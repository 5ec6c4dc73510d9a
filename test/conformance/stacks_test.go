//go:build guest

package conformance

import (
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/kernel"
)

var verified = regexp.MustCompile(`^(\d+) call stacks were known again by comparing, and unwound as well`)

// TestStacks: of all the ways to one call that paths.c goes, with interrupts on top, none is
// taken for another. Each one that is known again is unwound as well, and compared.
func TestStacks(t *testing.T) {
	k, err := kernel.Running()
	if err != nil {
		t.Fatal(err)
	}
	o := kedr(t, "run", "--vm=never", "--verify-stacks", "--format", "json", ko("paths"))
	r := parse(t, o)
	if o.status != 1 {
		t.Errorf("exit status %d\n%s", o.status, o.stderr)
	}
	check(t, r, expected(t, "paths"), 1)
	// Seven times by one way, and five by another.
	ways := make(map[string]uint64)
	for _, l := range r.PossibleLeaks {
		for _, f := range l.Stack {
			if by, _, _ := strings.Cut(f.Function, "."); by == "left" || by == "right" {
				ways[by] += l.Count
			}
		}
	}
	if d := cmp.Diff(map[string]uint64{"left": 7, "right": 5}, ways); d != "" {
		t.Errorf("what leaked, by who called (-want +got):\n%s", d)
	}
	n := 0
	for _, note := range r.Notes {
		if m := verified.FindStringSubmatch(note); m != nil {
			n, _ = strconv.Atoi(m[1])
		}
	}
	// Linux 5.17 has what it takes to know one again. There are some 6000 to be told, of
	// 3000 pairs of calls; those in interrupts, and each the first time, have to be unwound.
	can := k.AtLeast(5, 17) && runtime.GOARCH == "amd64"
	if can && n < 2000 || !can && n != 0 {
		t.Errorf("%d call stacks were known again: %s", n, strings.Join(r.Notes, "; "))
	}
	t.Logf("%d call stacks were known again", n)
}
