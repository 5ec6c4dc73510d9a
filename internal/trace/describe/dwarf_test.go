package describe

import (
	"strings"
	"testing"
	"testing/fstest"

	"kedr/internal/target"
)

// TestPrototypes reads a module's functions from its debug information, in both versions
// of it that compilers make today.
func TestPrototypes(t *testing.T) {
	chain := []string{"void * first(unsigned long n,)", "void * direct(int i,)", " left(void * p,)", "int chain_init()"}
	for name, want := range map[string][]string{"chain-dwarf4": chain, "chain-dwarf5": chain, "hello-kernel": {"int hello_init()", " hello_exit()"}} {
		t.Run(name, func(t *testing.T) {
			m, err := target.Open("../../target/testdata/" + name + ".ko.xz")
			if err != nil {
				t.Fatal(err)
			}
			info, err := m.DebugInfo()
			if err != nil {
				t.Fatal(err)
			}
			d, err := New(kernelTypes(t), "6.1.0", fstest.MapFS{})
			if err != nil {
				t.Fatal(err)
			}
			wanted := make(map[string]bool)
			for _, f := range m.Funcs {
				wanted[f.Name] = true
			}
			protos, err := d.Prototypes(info.Data, wanted)
			if err != nil {
				t.Fatal(err)
			}
			var shown []string
			for _, f := range m.Funcs {
				proto := protos[f.Name]
				if proto == nil {
					continue
				}
				x, err := ParseExpansions(nil)
				if err != nil {
					t.Fatal(err)
				}
				fn, err := d.Described(proto, f.Name, 0, x)
				if err != nil || !fn.Known || !fn.Callback {
					t.Errorf("%+v, %v", fn, err)
				}
				text := fn.Result.Name + " " + fn.Name + "("
				for _, p := range fn.Params {
					text += p.Type.Name + " " + p.Name + ","
				}
				shown = append(shown, text+")")
			}
			all := strings.Join(shown, "\n") + "\n"
			for _, w := range want {
				if !strings.Contains(all, w+"\n") {
					t.Errorf("no %s in:\n%s", w, all)
				}
			}
			// Two files have one each.
			if strings.Contains(all, "namesake") {
				t.Errorf("namesake in:\n%s", all)
			}
		})
	}
}
