package symbolize

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"

	"kedr/internal/target"
)

const testdata = "../target/testdata"

func open(t testing.TB, name string) *target.Module {
	t.Helper()
	m, err := target.Open(filepath.Join(testdata, name+".ko.xz"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// source is a file of a fixture, as the debug information and as the tree name it.
type source struct{ debug, tree string }

var (
	helloC = source{"/src/hello-kernel/hello.c", "../../examples/hello-kernel/hello.c"}
	chainH = source{"/src/chain/chain.h", testdata + "/chain/chain.h"}
	mainC  = source{"/src/chain/main.c", testdata + "/chain/main.c"}
	otherC = source{"/src/chain/other.c", testdata + "/chain/other.c"}
	smallC = source{"/src/small32.c", testdata + "/small32.c"}
)

// lineOf returns the line of the source that has the text, which must be one.
func lineOf(t testing.TB, s source, text string) int {
	t.Helper()
	f, err := os.Open(s.tree)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := 0
	scan := bufio.NewScanner(f)
	for n := 1; scan.Scan(); n++ {
		if strings.Contains(scan.Text(), text) {
			if found != 0 {
				t.Fatalf("%s: %q in lines %d and %d", s.tree, text, found, n)
			}
			found = n
		}
	}
	if found == 0 {
		t.Fatalf("%s: no %q", s.tree, text)
	}
	return found
}

// base is where the tests load a section.
func base(section int) uint64 { return 0xffffffffc0000000 + uint64(section)<<20 }

// after returns the return address of the nth call (from 0) of a function to
// another.
func after(t testing.TB, m *target.Module, caller, callee string, n int) Location {
	t.Helper()
	for _, c := range m.Calls {
		f, _ := m.FuncAt(c.Section, c.End-1)
		if c.Tail || f.Name != caller || c.Symbol != callee {
			continue
		}
		if n == 0 {
			return Location{Section: c.Section, Offset: c.End, Address: base(c.Section) + c.End}
		}
		n--
	}
	t.Fatalf("no such call of %s to %s", caller, callee)
	return Location{}
}

// short is what the tests compare of a frame.
type short struct {
	Function string
	File     string
	Line     int
	Kind     string // "inlined", "inferred", both or neither
}

func shorten(frames []Frame) []short {
	var out []short
	for _, f := range frames {
		s := short{Function: f.Function, File: f.File, Line: f.Line}
		if f.Inlined {
			s.Kind += "inlined"
		}
		if f.Inferred {
			s.Kind += "inferred"
		}
		out = append(out, s)
	}
	return out
}

func TestFrames(t *testing.T) {
	at := func(function string, s source, text, kind string) short {
		return short{function, s.debug, lineOf(t, s, text), kind}
	}
	for _, name := range []string{"chain-dwarf5", "chain-dwarf4"} {
		m := open(t, name)
		r := New(m)
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		tests := []struct {
			caller, callee string
			n              int
			want           []short
		}{
			{"direct", "vmalloc", 0, []short{
				at("grab", chainH, "vmalloc(n)", "inlined"),
				at("grab_twice", mainC, "grab(i, 111)", "inlined"),
				at("direct", mainC, "grab_twice(i);", ""),
			}},
			{"direct", "vmalloc", 1, []short{
				at("grab", chainH, "vmalloc(n)", "inlined"),
				at("grab_twice", mainC, "grab(i + 1, 222)", "inlined"),
				at("direct", mainC, "grab_twice(i);", ""),
			}},
			// .init.text, which starts at 0 as .text does.
			{"chain_init", "vmalloc", 0, []short{
				at("grab", chainH, "vmalloc(n)", "inlined"),
				at("chain_init", mainC, "grab(15, 333)", ""),
			}},
			{"chain_init", "direct", 0, []short{at("chain_init", mainC, "direct(1)", "")}},
			{"chain_init", "middle", 0, []short{at("chain_init", mainC, "middle(20)", "")}},
			{"chain_exit", "vfree", 0, []short{at("chain_exit", mainC, "vfree(kept[i])", "")}},
			{"chilly.cold", "vmalloc", 0, []short{at("chilly.cold", mainC, "kept[9] = vmalloc(n)", "")}},
			{"other_file", "namesake", 0, []short{at("other_file", otherC, "namesake(n);", "")}},
		}
		for _, tc := range tests {
			loc := after(t, m, tc.caller, tc.callee, tc.n)
			got := r.Frames(loc.Section, loc.Offset, loc.Address)
			if diff := cmp.Diff(tc.want, shorten(got)); diff != "" {
				t.Errorf("%s: %s calls %s, -want +got:\n%s", name, tc.caller, tc.callee, diff)
			}
			f, _ := m.FuncAt(loc.Section, loc.Offset-1)
			for i, frame := range got {
				last := i == len(got)-1
				if frame.Address != loc.Address || frame.Module != "chain" {
					t.Errorf("%s: %+v", tc.caller, frame)
				}
				if last && (frame.Offset != loc.Offset-f.Offset || frame.Size != f.Size) || !last && (frame.Offset != 0 || frame.Size != 0) {
					t.Errorf("%s: offset %d of %d, function %+v", tc.caller, frame.Offset, frame.Size, f)
				}
			}
		}
	}
}

func TestStack(t *testing.T) {
	at := func(function string, s source, text, kind string) short {
		return short{function, s.debug, lineOf(t, s, text), kind}
	}
	type call struct{ caller, callee string }
	kernel := Frame{Address: 0xffffffff81000000, Function: "do_one_initcall", Offset: 0x56, Size: 0x200}
	tests := []struct {
		name, module string
		stack        []call // innermost first
		callee       string
		reached      string
		want         []short
	}{
		{
			"the walkthrough's first leak", "hello-kernel", []call{{"hello_init", "myfunc1"}}, "vmalloc", "vmalloc",
			[]short{at("myfunc1", helloC, "vmalloc(10)", "inferred"), at("hello_init", helloC, "	myfunc1();", "")},
		},
		{
			"callee unknown", "hello-kernel", []call{{"hello_init", "myfunc2"}}, "", "vmalloc",
			[]short{at("myfunc2", helloC, "vmalloc(30)", "inferred"), at("hello_init", helloC, "	myfunc2();", "")},
		},
		{
			"a name that is no import", "hello-kernel", []call{{"hello_init", "myfunc1"}}, "__vmalloc_node", "__vmalloc_node",
			[]short{at("myfunc1", helloC, "vmalloc(10)", "inferred"), at("hello_init", helloC, "	myfunc1();", "")},
		},
		{
			"an import that is not reached", "hello-kernel", []call{{"hello_init", "myfunc1"}}, "vfree", "vfree",
			[]short{at("hello_init", helloC, "	myfunc1();", "")},
		},
		{
			"direct", "hello-kernel", []call{{"myfunc2", "vmalloc"}, {"hello_init", "myfunc2"}}, "", "vmalloc",
			[]short{at("myfunc2", helloC, "vmalloc(20)", ""), at("hello_init", helloC, "	myfunc2();", "")},
		},
		{
			"another import's work", "hello-kernel", []call{{"myfunc2", "_printk"}, {"hello_init", "myfunc2"}}, "vmalloc", "vmalloc",
			[]short{at("myfunc2", helloC, "FUNCTION2", ""), at("hello_init", helloC, "	myfunc2();", "")},
		},
		{
			"chain of three", "chain-dwarf5", []call{{"chain_init", "first"}}, "vmalloc", "vmalloc",
			[]short{
				at("third", mainC, "vmalloc(n * 3)", "inferred"), at("second", mainC, "third(n + 2)", "inferred"),
				at("first", mainC, "second(n * 5)", "inferred"), at("chain_init", mainC, "first(10)", ""),
			},
		},
		{
			"chain of three, DWARF 4", "chain-dwarf4", []call{{"chain_init", "first"}}, "", "vmalloc",
			[]short{
				at("third", mainC, "vmalloc(n * 3)", "inferred"), at("second", mainC, "third(n + 2)", "inferred"),
				at("first", mainC, "second(n * 5)", "inferred"), at("chain_init", mainC, "first(10)", ""),
			},
		},
		{
			"between two frames", "chain-dwarf5", []call{{"leaf", "vmalloc"}, {"chain_init", "middle"}}, "vmalloc", "vmalloc",
			[]short{
				at("leaf", mainC, "void *p = vmalloc(n);", ""), at("middle", mainC, "leaf(n + 7)", "inferred"),
				at("chain_init", mainC, "middle(20)", ""),
			},
		},
		{
			"two ways", "chain-dwarf5", []call{{"chain_init", "either"}}, "vfree", "vfree",
			[]short{at("chain_init", mainC, "either(kept[3])", "")},
		},
		{
			"two jumps to one import", "chain-dwarf5", []call{{"chain_init", "twosites"}}, "vmalloc", "vmalloc",
			[]short{{"twosites", "", 0, "inferred"}, at("chain_init", mainC, "twosites(30)", "")},
		},
		{
			"namesake of main.c", "chain-dwarf5", []call{{"chain_init", "namesake"}}, "", "vmalloc",
			[]short{at("namesake", mainC, "vmalloc(n + 1)", "inferred"), at("chain_init", mainC, "namesake(40)", "")},
		},
		{
			"namesake of other.c", "chain-dwarf5", []call{{"other_file", "namesake"}, {"chain_init", "other_file"}}, "", "vzalloc",
			[]short{
				at("namesake", otherC, "vzalloc(n + 2)", "inferred"), at("other_file", otherC, "namesake(n);", ""),
				at("chain_init", mainC, "other_file(50)", ""),
			},
		},
		{
			"cold part", "chain-dwarf5", []call{{"chilly.cold", "vmalloc"}, {"chain_init", "chilly"}}, "vmalloc", "vmalloc",
			[]short{at("chilly.cold", mainC, "kept[9] = vmalloc(n)", ""), at("chain_init", mainC, "chilly(mode)", "")},
		},
		{
			"through a pointer", "chain-dwarf5", []call{{"leaf", "vmalloc"}, {"chain_init", "__x86_indirect_thunk_rax"}}, "vmalloc", "vmalloc",
			[]short{at("leaf", mainC, "void *p = vmalloc(n);", ""), at("chain_init", mainC, "pointer(60)", "")},
		},
		{
			"the kernel between", "chain-dwarf5", []call{{"leaf", "vmalloc"}, {}, {"chain_init", "middle"}}, "vmalloc", "vmalloc",
			[]short{
				at("leaf", mainC, "void *p = vmalloc(n);", ""), {Function: "do_one_initcall"},
				at("chain_init", mainC, "middle(20)", ""),
			},
		},
		{
			"32 bits", "small32", []call{{"init_module", "hops"}}, "vmalloc", "vmalloc",
			[]short{
				at("jumps", smallC, "	return vmalloc(n);", "inferred"), at("hops", smallC, "jumps(n + 1)", "inferred"),
				at("init_module", smallC, "hops(32)", ""),
			},
		},
		{
			"32 bits, inlined", "small32", []call{{"cleanup_module", "vmalloc"}}, "", "vmalloc",
			[]short{at("grab", smallC, "kept = vmalloc(n)", "inlined"), at("cleanup_module", smallC, "grab(64)", "")},
		},
	}
	modules := make(map[string]*target.Module)
	resolvers := make(map[string]*Resolver)
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			m, r := modules[tc.module], resolvers[tc.module]
			if m == nil {
				m = open(t, tc.module)
				r = New(m)
				modules[tc.module], resolvers[tc.module] = m, r
			}
			var stack []Location
			for _, c := range tc.stack {
				if c.caller == "" {
					stack = append(stack, Location{Section: -1, Address: kernel.Address, Other: &kernel})
				} else {
					stack = append(stack, after(t, m, c.caller, c.callee, 0))
				}
			}
			got, reached := r.Stack(stack, tc.callee)
			if diff := cmp.Diff(tc.want, shorten(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if reached != tc.reached {
				t.Errorf("reached %q, want %q", reached, tc.reached)
			}
			// Every known address lies in the function that is named.
			for _, f := range got {
				if f.Module == "" || f.Address == 0 || f.Inlined {
					continue
				}
				found := false
				for i := range m.Sections {
					fn, ok := m.FuncAt(i, f.Address-1-base(i))
					found = found || ok && fn.Name == f.Function && f.Address-base(i)-fn.Offset == f.Offset
				}
				if !found {
					t.Errorf("no %s at %#x", f.Function, f.Address)
				}
			}
		})
	}
}

// A frame that was put back in a section without any other frame has no address.
func TestInferredAddress(t *testing.T) {
	m := open(t, "chain-dwarf5")
	got, _ := New(m).Stack([]Location{after(t, m, "chain_init", "namesake", 0)}, "vmalloc")
	if len(got) != 2 || !got[0].Inferred || got[0].Address != 0 || got[0].Offset == 0 {
		t.Errorf("got %+v", got)
	}
	m = open(t, "hello-kernel")
	got, _ = New(m).Stack([]Location{after(t, m, "hello_init", "myfunc1", 0)}, "vmalloc")
	if len(got) != 2 || !got[0].Inferred || got[0].Address <= base(0) || got[0].Offset != got[0].Size {
		t.Errorf("got %+v", got)
	}
}

func TestImport(t *testing.T) {
	m := open(t, "chain-dwarf5")
	r := New(m)
	for _, c := range m.Calls {
		want := ""
		if c.Import {
			want = c.Symbol
		}
		if got := r.Import(c.Section, c.End); got != want {
			t.Errorf("call %+v reaches %q, want %q", c, got, want)
		}
	}
	if got := r.Import(0, 1); got != "" {
		t.Errorf("no call reaches %q", got)
	}
}

// Without debug information, and at places that are nowhere, there are frames all the same.
func TestWithoutLines(t *testing.T) {
	m := &target.Module{
		Name: "bare", Sections: []target.Section{{Name: ".text", Size: 64}},
		Funcs: []target.Func{{Name: "f", Section: 0, Offset: 16, Size: 32}},
	}
	r := New(m)
	want := []Frame{{Address: 1024 + 48, Function: "f", Offset: 32, Size: 32, Module: "bare"}}
	if diff := cmp.Diff(want, r.Frames(0, 48, 1024+48)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := r.Err(); !errors.Is(err, target.ErrNoDebugInfo) {
		t.Errorf("error %v", err)
	}
	lined := open(t, "hello-kernel")
	for _, r := range []*Resolver{r, New(lined)} {
		for _, at := range []place{{0, 0}, {0, 1 << 40}, {7, 4}, {-1, 4}} {
			got := r.Frames(at.section, at.offset, 5)
			if diff := cmp.Diff([]Frame{{Address: 5, Module: r.module.Name}}, got); diff != "" {
				t.Errorf("%+v, -want +got:\n%s", at, diff)
			}
		}
	}
	if frames, reached := r.Stack(nil, ""); frames != nil || reached != "" {
		t.Errorf("empty stack: %v, %q", frames, reached)
	}
}

func TestConcurrent(t *testing.T) {
	m := open(t, "chain-dwarf5")
	r := New(m)
	loc := after(t, m, "chain_init", "first", 0)
	want, _ := r.Stack([]Location{loc}, "vmalloc")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got, _ := r.Stack([]Location{loc}, "vmalloc"); !cmp.Equal(want, got) {
					t.Errorf("got %+v", got)
				}
			}
		})
	}
	wg.Wait()
}

func image(f *testing.F, raw []byte) []byte {
	r, err := xz.NewReader(bytes.NewReader(raw))
	if err != nil {
		f.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// A file that was cut or changed must not bring us down.
func FuzzFrames(f *testing.F) {
	raw, err := os.ReadFile(filepath.Join(testdata, "small32.ko.xz"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(image(f, raw))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := target.Parse(raw, "fuzz.ko")
		if err != nil {
			return
		}
		r := New(m)
		for _, c := range m.Calls {
			r.Stack([]Location{{Section: c.Section, Offset: c.End, Address: base(c.Section) + c.End}}, "vmalloc")
		}
	})
}
