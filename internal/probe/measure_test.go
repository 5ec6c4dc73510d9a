package probe

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/kernel"
)

func TestParseModules(t *testing.T) {
	got, err := parseModules("overlay 114688 1 - Live 0xf8a10000\n9p 61440 2 fscache,netfs, Live 0xf89f0000 (OE)\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []loadedModule{{name: "overlay", size: 114688, address: 0xf8a10000}, {name: "9p", size: 61440, address: 0xf89f0000}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(loadedModule{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for _, bad := range []string{"overlay 1\n", "overlay x 1 - Live 0x1\n", "overlay 1 1 - Live here\n"} {
		if _, err := parseModules(bad); err == nil {
			t.Errorf("%q is no module", bad)
		}
	}
}

func FuzzParseModules(f *testing.F) {
	f.Add("overlay 114688 1 - Live 0xf8a10000\n", "e001 5 0\n")
	f.Fuzz(func(t *testing.T, modules, profile string) {
		parseModules(modules)
		parseHits([]byte(profile))
	})
}

// image makes a struct module as 6.1 has it on 32 bits: name at 12, core_layout at 0x80
// (base, size, text_size, ro_size, ro_after_init_size, mtn), init_layout 48 bytes on, and
// kallsyms before core_kallsyms at 0x100.
func image(name string, at, address uint64, sizes ...uint32) moduleImage {
	b := make([]byte, 0x180)
	put := func(offset int, v uint64) { binary.LittleEndian.PutUint32(b[offset:], uint32(v)) }
	put(4, at+4) // an empty list
	put(8, at+4)
	copy(b[12:], name)
	put(0x50, at) // mkobj.mod
	for i, base := range []int{0x80, 0x80 + 48} {
		if i == 0 {
			put(base, address)
		}
		put(base+4, uint64(sizes[i]))
		put(base+8, uint64(sizes[i])/2)
		put(base+20, at) // mtn.mod
	}
	put(0x100, at+0x104)
	var total uint64
	for _, s := range sizes {
		total += uint64(s)
	}
	return moduleImage{loadedModule{name, total, address, at}, b, 4}
}

func TestMeasureModule(t *testing.T) {
	images := []moduleImage{image("one", 0xf8001000, 0xf8000000, 8192, 0), image("two", 0xf9005000, 0xf9000000, 24576, 0)}
	l := kedrKernelLayout{Word: 4, ModuleName: 12}
	if err := measureModule(&l, images, false); err != nil {
		t.Fatal(err)
	}
	want := kedrKernelLayout{
		Word: 4, ModuleName: 12,
		CoreBase: 0x80, CoreSize: 0x88, InitBase: 0x80 + 48, InitSize: 0x88 + 48, Kallsyms: 0x100,
	}
	if d := cmp.Diff(want, l); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for _, test := range []struct {
		name   string
		spoil  func(i *moduleImage)
		reason string
	}{
		{"another name", func(i *moduleImage) { i.name = "three" }, "should have its name"},
		{"another address", func(i *moduleImage) { i.address++ }, "not found"},
		{"another size", func(i *moduleImage) { i.size++ }, "0 places, by what /proc/modules says"},
		{"no kallsyms", func(i *moduleImage) { i.b[0x100]++ }, "kallsyms could be in 0 places"},
		{"no tree", func(i *moduleImage) { i.b[0x80+20]++ }, "areas are found"},
		{"cut", func(i *moduleImage) { i.b = i.b[:0x90] }, "areas are found"},
	} {
		images := []moduleImage{image("one", 0xf8001000, 0xf8000000, 8192, 0), image("two", 0xf9005000, 0xf9000000, 24576, 0)}
		test.spoil(&images[1])
		err := measureModule(&kedrKernelLayout{Word: 4, ModuleName: 12}, images, false)
		if err == nil || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestSolvePages(t *testing.T) {
	page := func(n uint64) freedPage { return freedPage{0xc0000000 + n<<12, 0xf57f8000 + 40*n} }
	size, structs, linear, err := solvePages([]freedPage{page(0x2009), page(0x2009), page(7), page(0x1fff)}, 4)
	if err != nil || size != 40 || structs != 0xf57f8000 || linear != 0xc0000000 {
		t.Errorf("%d bytes, %#x, %#x, %v", size, structs, linear, err)
	}
	wide := func(n uint64) freedPage { return freedPage{0xffff888000000000 + n<<12, 0xffffea0000000000 + 64*n} }
	size, structs, linear, err = solvePages([]freedPage{wide(100), wide(5)}, 8)
	if err != nil || size != 64 || structs+(wide(1).address-linear)>>12*64 != wide(1).page {
		t.Errorf("%d bytes, %#x, %#x, %v", size, structs, linear, err)
	}
	for name, seen := range map[string][]freedPage{
		"one":         {page(1)},
		"the same":    {page(1), page(1)},
		"off by one":  {page(1), page(2), {page(3).address, page(3).page + 1}},
		"two at once": {page(1), {page(1).address, page(2).page}},
		"too large":   {{0x1000, 0x1000}, {0x2000, 0x2000}},
	} {
		if size, _, _, err := solvePages(seen, 4); err == nil {
			t.Errorf("%s: %d bytes", name, size)
		}
	}
}

func TestPairPages(t *testing.T) {
	got := pairPages([]uint64{0xf001, 0xc0001000, 0xf101, 0xc0002000, 0xc0003000, 0xf201, 0, 0xf301})
	want := []freedPage{{0xc0001000, 0xf100}, {0xc0003000, 0xf200}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(freedPage{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestWords(t *testing.T) {
	word, long, pointer := kernel.Param{Size: 4}, kernel.Param{Size: 8}, kernel.Param{Size: 8, Class: kernel.Pointer}
	for _, test := range []struct {
		name   string
		params []kernel.Param
		want   []uint8
		n      uint8
		ok     bool
	}{
		{"registers", []kernel.Param{word, pointer, word}, []uint8{0, 1, 2}, 3, true},
		{"stack", []kernel.Param{word, word, word, word}, []uint8{0, 1, 2, 3}, 4, true},
		{"two registers", []kernel.Param{long, word}, []uint8{0, 2}, 3, true},
		{"no two left", []kernel.Param{pointer, word, long, word}, []uint8{0, 1, 3, 5}, 6, true},
		{"too many", []kernel.Param{long, long, long, word}, nil, 0, false},
		{"none", nil, []uint8{}, 0, true},
	} {
		at, n, err := words(test.params)
		if (err == nil) != test.ok || n != test.n || cmp.Diff(test.want, at) != "" {
			t.Errorf("%s: %v, %d, %v", test.name, at, n, err)
		}
	}
}

func TestOpenProbe(t *testing.T) {
	for _, test := range []struct {
		machine string
		sp      uint64
	}{{"x86_64", 0xffffc90000123fe8}, {"i686", 0xf6a01f3c}} {
		s := &Set{kernel: &kernel.Kernel{Machine: test.machine}}
		for _, id := range []uint32{0, 7, maxProbes - 1} {
			if got := s.openProbe(test.sp ^ uint64(id+1)<<48); got != id {
				t.Errorf("%s: probe %d is taken for %d", test.machine, id, got)
			}
		}
	}
}

func TestParseHits(t *testing.T) {
	got, err := parseHits([]byte("  e001                      12     0\n  r001       11  1\nnot a line of ours\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]kprobeHits{"e001": {12, 0}, "r001": {11, 1}}, got, cmp.AllowUnexported(kprobeHits{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if _, err := parseHits([]byte("e001 -1 0\n")); err == nil {
		t.Error("a negative number")
	}
}
