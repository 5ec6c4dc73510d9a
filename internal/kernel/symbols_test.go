package kernel

import (
	"strings"
	"testing"
)

const kallsyms = `ffffffff81000000 T _text
ffffffff81000010 t helper
ffffffff81000040 T vmalloc
ffffffff81000080 T vfree
ffffffffc0000000 t helper	[hello]
ffffffffc0000020 t other	[hello]
not a line
`

func TestSymbols(t *testing.T) {
	s, err := parseSymbols(strings.NewReader(kallsyms))
	if err != nil {
		t.Fatal(err)
	}
	if sym, ok := s.Find("vmalloc"); !ok || sym.Address != 0xffffffff81000040 || sym.Size != 0x40 || sym.Module != "" {
		t.Errorf("vmalloc: %+v, %v", sym, ok)
	}
	if sym, ok := s.Find("helper"); !ok || sym.Address != 0xffffffff81000010 {
		t.Errorf("the kernel's own helper comes first: %+v, %v", sym, ok)
	}
	if _, ok := s.Find("nosuch"); ok {
		t.Error("nosuch was found")
	}
	for address, want := range map[uint64]string{
		0xffffffff81000040: "vmalloc", 0xffffffff8100007f: "vmalloc", 0xffffffffc000001f: "helper",
		0xffffffff80ffffff: "", 0xffffffffc0000021: "", // the last symbol has no end
	} {
		if sym, ok := s.At(address); sym.Name != want || ok != (want != "") {
			t.Errorf("%#x: %+v, %v, want %q", address, sym, ok, want)
		}
	}
	if sym, _ := s.At(0xffffffffc0000000); sym.Module != "hello" {
		t.Errorf("module %q", sym.Module)
	}
}

func TestSymbolsHidden(t *testing.T) {
	_, err := parseSymbols(strings.NewReader("0000000000000000 T _text\n0000000000000000 T vmalloc\n"))
	if err == nil || !strings.Contains(err.Error(), "kptr_restrict") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseSymbols(f *testing.F) {
	f.Add(kallsyms)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSymbols(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, sym := range s.sorted {
			if at, ok := s.At(sym.Address); !ok || at.Address != sym.Address {
				t.Errorf("%+v is not at its own address: %+v", sym, at)
			}
		}
	})
}

func TestAtLeast(t *testing.T) {
	for _, test := range []struct {
		release      string
		major, minor int
		want         bool
	}{
		{"5.10.0-46-amd64", 5, 10, true}, {"5.10.0-46-amd64", 5, 11, false}, {"5.10.0-46-amd64", 6, 1, false},
		{"6.1.0-56-rt-amd64", 5, 17, true}, {"7.3.4+deb13-amd64", 6, 18, true}, {"odd", 0, 0, false},
	} {
		k := &Kernel{Release: test.release}
		if got := k.AtLeast(test.major, test.minor); got != test.want {
			t.Errorf("%s at least %d.%d: %v", test.release, test.major, test.minor, got)
		}
	}
}
