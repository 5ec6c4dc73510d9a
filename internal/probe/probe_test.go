package probe

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestABI holds this package's constants against the compiled programs.
func TestABI(t *testing.T) {
	spec, err := loadKedr()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := spec.Variables["lost"].Size(), uint32(8*maxProbes*len(reasons)); got != want {
		t.Errorf("lost has %d bytes, and the reasons make %d", got, want)
	}
	if got, want := spec.Variables["rescued"].Size(), uint32(8*maxProbes); got != want {
		t.Errorf("rescued has %d bytes, want %d", got, want)
	}
	if got, want := spec.Variables["preempt_count"].Size(), uint32(8*maxCPUs); got != want {
		t.Errorf("preempt_count has %d bytes, want %d", got, want)
	}
	for _, name := range sharedMaps {
		if spec.Maps[name] == nil {
			t.Errorf("the programs have no map %s", name)
		}
	}
	var target kedrTarget
	if len(target.Section) != MaxSections {
		t.Errorf("room for %d sections, want %d", len(target.Section), MaxSections)
	}
}

func TestParseSymbol(t *testing.T) {
	for _, test := range []struct {
		text string
		want Symbol
		ok   bool
	}{
		{"do_one_initcall+0x59/0x220", Symbol{"do_one_initcall", 0x59, 0x220, ""}, true},
		{"ext4_put_super+0x2bf/0x3fd [ext4]", Symbol{"ext4_put_super", 0x2bf, 0x3fd, "ext4"}, true},
		{"f.isra.0+0x0/0x10 [m 1234567890abcdef]", Symbol{"f.isra.0", 0, 0x10, "m"}, true},
		{"0xffffffffc02a308f", Symbol{}, false},
		{"", Symbol{}, false},
		{"+0x1/0x2", Symbol{}, false},
		{"f+0x1", Symbol{}, false},
	} {
		got, ok := ParseSymbol(test.text)
		if ok != test.ok || ok && got != test.want {
			t.Errorf("%q: %+v, %v; want %+v, %v", test.text, got, ok, test.want, test.ok)
		}
	}
}

func TestReadSymbols(t *testing.T) {
	got, err := readSymbols(strings.NewReader("ffffffff81000010 start+0x10/0x20\nffffffffc0000000 0xffffffffc0000000\nnonsense\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint64]Symbol{0xffffffff81000010: {"start", 0x10, 0x20, ""}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("symbols differ (-want +got):\n%s", d)
	}
}

func FuzzReadSymbols(f *testing.F) {
	f.Add("ffffffff81000010 start+0x10/0x20 [m]\n")
	f.Fuzz(func(t *testing.T, text string) { readSymbols(strings.NewReader(text)) })
}
