package prototype

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const text = `# comment
versions 5.10 6.1 6.12
same	5.10 6.1 6.12	size:i flags:i4
moved	5.10 6.1	s:p/kmem_cache n:i
moved	6.12	n:i s:p/kmem_cache
late	6.12	v:s16
none	5.10 6.1 6.12	
varies	6.1	fmt:p ...:o
`

func TestOf(t *testing.T) {
	table, err := read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ function, release, want string }{
		{"same", "6.1.0-50-686-pae", "size:i flags:i4"},
		{"same", "5.15.3", "size:i flags:i4"}, // those before and after it agree
		{"same", "5.4.0", "unknown"},          // older than all that are known
		{"same", "6.13.0-rc1", "unknown"},     // newer
		{"moved", "5.15.3", "s:p/kmem_cache n:i"},
		{"moved", "6.6.1", "unknown"}, // somewhere in between it changed
		{"moved", "6.12.1-amd64", "n:i s:p/kmem_cache"},
		{"late", "6.1.0", "unknown"},
		{"late", "6.12", "v:s16"},
		{"none", "6.1.0", ""},
		{"varies", "6.1.0", "fmt:p ...:o"},
		{"absent", "6.1.0", "unknown"},
		{"same", "linux", "unknown"},
	} {
		params, err := table.of(test.function, test.release)
		var words []string
		for _, p := range params {
			words = append(words, p.String())
		}
		got := strings.Join(words, " ")
		var unknown *UnknownError
		if errors.As(err, &unknown) {
			got = "unknown"
		} else if err != nil {
			t.Error(err)
		}
		if got != test.want {
			t.Errorf("%s on %s: %q, want %q", test.function, test.release, got, test.want)
		}
	}
}

func TestWrite(t *testing.T) {
	a := []Param{{Name: "size", Kind: Integer}, {Name: "page", Kind: Pointer, Pointee: "page"}}
	b := []Param{{Name: "size", Kind: Integer, Size: 4}}
	var out bytes.Buffer
	err := Write(&out, []string{"5.10", "6.1", "6.12"}, []map[string][]Param{{"f": a}, {"f": a, "g": b}, {"f": b, "g": b}})
	if err != nil {
		t.Fatal(err)
	}
	table, err := read(&out)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]entry{
		"f": {{versions: []int{0, 1}, params: a}, {versions: []int{2}, params: b}},
		"g": {{versions: []int{1, 2}, params: b}},
	}
	if d := cmp.Diff(want, table.functions, cmp.AllowUnexported(entry{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"fields":  "versions 6.1\nf\t6.1\n",
		"version": "versions 6.1\nf\t6.2\ta:i\n",
		"kind":    "versions 6.1\nf\t6.1\ta:x\n",
		"size":    "versions 6.1\nf\t6.1\ta:i4x\n",
		"no kind": "versions 6.1\nf\t6.1\ta\n",
	} {
		if _, err := read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKnown: the table itself can be read, and has what every plan needs.
func TestKnown(t *testing.T) {
	for _, release := range []string{"5.10.0-46-amd64", "6.1.0-50-686-pae", "6.12.1-amd64", "7.3.4+deb13-amd64"} {
		for _, function := range []string{"__traceiter_kfree", "vfree", "module_arch_freeing_init"} {
			if p, err := Of(function, release); err != nil || len(p) == 0 {
				t.Errorf("%s on %s: %v, %v", function, release, p, err)
			}
		}
	}
}
