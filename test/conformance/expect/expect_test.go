package expect

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const source = `// TOTAL allocations=4 leaks=3 wrong-frees=1
// NEEDS helper other
// RUN
// RUN early=1 count=3 -- ioctl /dev/x
	lose(); // LEAK 64,? slab
	free(); // DOUBLE-FREE percpu x2 irq stack=f,g
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
// TOTAL wrong-frees=1
	lose(); // LEAK 10 page
#else
	lose(); // LEAK 11 page
	free(); // WRONG-FREE page
#endif
`

func TestParse(t *testing.T) {
	f, err := Parse("x.c", source, Version{Major: 6, Minor: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := &File{
		Name: "x.c",
		Finds: []Find{
			{Line: 5, Size: 64, Kind: "slab", Count: 1},
			{Line: 5, Kind: "slab", Count: 1},
			{Line: 6, Wrong: "double", Kind: "percpu", Count: 2, IRQ: true, Stack: []string{"f", "g"}},
			{Line: 9, Size: 10, Kind: "page", Count: 1},
		},
		Total: Total{4, 3, 2},
		Needs: []string{"helper", "other"},
		Runs:  []Run{{Params: []string{}}, {[]string{"early=1", "count=3"}, []string{"ioctl", "/dev/x"}}},
	}
	if d := cmp.Diff(want, f); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if _, err := Parse("x.c", source, Version{Major: 5, Minor: 10, Patch: 0}); err == nil || !strings.Contains(err.Error(), "add up") {
		t.Errorf("a total that is not the sum: %v", err)
	}
}

// TestModules: what the modules say adds up, for every kernel.
func TestModules(t *testing.T) {
	files, err := filepath.Glob("../../modules/*.c")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		for _, v := range []Version{{Major: 5, Minor: 10}, {Major: 6, Minor: 1}, {Major: 6, Minor: 1, Narrow: true}, {Major: 6, Minor: 12}, {Major: 7, Minor: 3}} {
			if _, err := Read(name, v); err != nil {
				t.Errorf("for %d.%d: %v", v.Major, v.Minor, err)
			}
		}
	}
}
