//go:build guest

package conformance

import (
	"strings"
	"testing"
	"time"

	"kedr/internal/kernel"
)

// TestBothWays: two targets call each other and release each other's objects.
func TestBothWays(t *testing.T) {
	start(t, "west", "east")
	k, err := kernel.Running()
	if err != nil {
		t.Fatal(err)
	}
	jumps := k.AtLeast(5, 15) // since when links keep a kprobe
	must(t, "insmod", ko("west"))
	must(t, "insmod", ko("east"))
	must(t, "rmmod", "east")
	must(t, "rmmod", "west")
	for _, name := range []string{"west", "east"} {
		if !jumps {
			o := kedr(t, "report", name)
			if o.status != 4 || !strings.Contains(o.stdout, "calls of vmalloc were not seen: when the kernel calls kedr_west_jump, which ends in a jump to it") {
				t.Errorf("%+v", o)
			}
			continue
		}
		check(t, parse(t, kedr(t, "report", "--format", "json", name)), expected(t, name), 1)
	}
}

// TestInitReused: what others do at the addresses that a target's init area had is
// not the target's.
func TestInitReused(t *testing.T) {
	start(t, "inittext")
	must(t, "insmod", ko("inittext"))
	time.Sleep(200 * time.Millisecond) // until RCU has freed the area
	for range 10 {
		must(t, "insmod", ko("reload"))
		must(t, "insmod", ko("kasprintf"))
		must(t, "rmmod", "kasprintf")
		must(t, "rmmod", "reload")
	}
	must(t, "rmmod", "inittext")
	check(t, parse(t, kedr(t, "report", "--format", "json", "inittext")), expected(t, "inittext"), 1)
}

// TestElsewhere loads a module again where it was not before; and where it was,
// there is another one meanwhile, which does the same and is not watched.
func TestElsewhere(t *testing.T) {
	start(t, "groups")
	others := []string{"deep", "leaker", "rcufree", "kasprintf", "sections"}
	for _, other := range others {
		must(t, "insmod", ko("groups"))
		must(t, "rmmod", "groups")
		must(t, "insmod", ko(other))
		t.Cleanup(func() { must(t, "rmmod", other) })
	}
	r := parse(t, kedr(t, "report", "--format", "json", "groups"))
	check(t, r, expected(t, "groups"), uint64(len(others)))
	places := make(map[any]bool)
	for _, l := range r.Loads {
		places[l.Core] = true
	}
	if len(places) == 1 {
		t.Errorf("always loaded to the same address: %+v", r.Loads)
	}
}
