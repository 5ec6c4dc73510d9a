package target

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

var exported = cmpopts.IgnoreUnexported(Module{})

func fixture(t testing.TB, name string) *Module {
	t.Helper()
	m, err := Open(filepath.Join("testdata", name+".ko.xz"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// unpacked returns the ELF file in a fixture.
func unpacked(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".ko.xz"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := xz.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	image, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestOpen(t *testing.T) {
	const vermagic64 = "6.1.0-56-amd64 SMP preempt mod_unload modversions"
	type summary struct {
		Name, Vermagic, Release string
		Machine                 elf.Machine
		Imports                 []string
		Sections                []string
		Init                    []string
		HasLines, HasBuildID    bool
	}
	chain := summary{
		Name: "chain", Vermagic: vermagic64, Release: "6.1.0-56-amd64", Machine: elf.EM_X86_64,
		Imports: []string{"__fentry__", "__x86_indirect_thunk_rax", "__x86_return_thunk", "_printk", "param_ops_int",
			"vfree", "vmalloc", "vzalloc"},
		Sections: []string{".exit.text", ".init.text", ".text", ".text.unlikely"},
		Init:     []string{".init.text"}, HasLines: true, HasBuildID: true,
	}
	tests := map[string]summary{
		"hello-kernel": {
			Name: "hello_kernel", Vermagic: vermagic64, Release: "6.1.0-56-amd64", Machine: elf.EM_X86_64,
			Imports:  []string{"__fentry__", "__x86_return_thunk", "_printk", "vfree", "vmalloc"},
			Sections: []string{".text.unlikely"}, HasLines: true, HasBuildID: true,
		},
		"chain-dwarf5": chain,
		"chain-dwarf4": chain,
		"small32": {
			Name: "small32", Vermagic: "6.1.0-686-pae SMP", Release: "6.1.0-686-pae", Machine: elf.EM_386,
			Imports: []string{"vmalloc"}, Sections: []string{".init.text", ".text"}, Init: []string{".init.text"}, HasLines: true,
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			m := fixture(t, name)
			got := summary{
				Name: m.Name, Vermagic: m.Vermagic, Release: m.Release(), Machine: m.Machine,
				HasLines: m.HasLines, HasBuildID: len(m.BuildID) == 40,
			}
			for _, i := range m.Imports {
				got.Imports = append(got.Imports, i.Name)
			}
			f, err := elf.NewFile(bytes.NewReader(unpacked(t, name)))
			if err != nil {
				t.Fatal(err)
			}
			symbols, err := f.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			if m.SymbolCount != len(symbols)+1 {
				t.Errorf("%d symbols, want %d", m.SymbolCount, len(symbols)+1)
			}
			for _, s := range m.Sections {
				got.Sections = append(got.Sections, s.Name)
				if s.Init {
					got.Init = append(got.Init, s.Name)
				}
				if is := f.Sections[s.Index]; is.Name != s.Name || is.Size != s.Size {
					t.Errorf("section %s of %d bytes is number %d, which is %s of %d", s.Name, s.Size, s.Index, is.Name, is.Size)
				}
				sym := symbols[s.Symbol-1]
				if uint16(sym.Section) != s.Index || sym.Value != s.SymbolValue {
					t.Errorf("%s: symbol %d is %q, in section %v at %d", s.Name, s.Symbol, sym.Name, sym.Section, sym.Value)
				}
			}
			if diff := cmp.Diff(want, got, cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if !filepath.IsAbs(m.Path) {
				t.Errorf("path %q is not absolute", m.Path)
			}
		})
	}
}

func TestCompression(t *testing.T) {
	image := unpacked(t, "small32")
	pack := func(f func(w io.Writer) (io.WriteCloser, error)) []byte {
		var b bytes.Buffer
		w, err := f(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(image); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	packed := map[string][]byte{
		"plain": image,
		"xz":    pack(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
		"zstd":  pack(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"gzip":  pack(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
	}
	want := fixture(t, "small32")
	for how, raw := range packed {
		t.Run(how, func(t *testing.T) {
			got, err := parse(want.Path, raw, maxImage)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, exported); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if _, err := parse("x", raw, int64(len(image))); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			if how != "plain" {
				if _, err := parse("x", raw, int64(len(image))-1); !errors.Is(err, ErrTooLarge) {
					t.Errorf("past the limit: %v", err)
				}
			}
			if _, err := parse("x", raw[:len(raw)-len(raw)/3], maxImage); !errors.Is(err, ErrTruncated) {
				t.Errorf("cut: %v", err)
			}
		})
	}
	bad := bytes.Clone(packed["gzip"])
	bad[len(bad)-6] ^= 1
	if _, err := parse("x", bad, maxImage); !errors.Is(err, ErrMalformed) {
		t.Errorf("wrong checksum: %v", err)
	}
	// The size of the dictionary: 0x25 is 768 MiB.
	bad = bytes.Clone(packed["xz"])
	if i := bytes.Index(bad, []byte{0x21, 0x01}); i != 14 {
		t.Fatalf("filter flags at %d", i)
	}
	bad[16] = 0x25
	if _, err := parse("x", bad, maxImage); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large dictionary: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	image := unpacked(t, "small32")
	patched := func(at int, value uint16) []byte {
		b := bytes.Clone(image)
		binary.LittleEndian.PutUint16(b[at:], value)
		return b
	}
	renamed := func(old, new string) []byte {
		if !bytes.Contains(image, []byte(old)) {
			t.Fatalf("no %q in the file", old)
		}
		return bytes.ReplaceAll(image, []byte(old), []byte(new))
	}
	tests := map[string]struct {
		content []byte
		want    error
	}{
		"empty":              {nil, ErrNotELF},
		"text":               {[]byte("#!/bin/sh\necho hello\n"), ErrNotELF},
		"gzipped text":       {gzipped("hello"), ErrNotELF},
		"magic only":         {image[:4], ErrTruncated},
		"header only":        {image[:52], ErrTruncated},
		"no section headers": {image[:len(image)-1], ErrTruncated},
		"executable":         {patched(16, uint16(elf.ET_EXEC)), ErrNotModule},
		"ARM":                {patched(18, uint16(elf.EM_AARCH64)), ErrArch},
		"x32":                {patched(18, uint16(elf.EM_X86_64)), ErrArch},
		"plain object":       {renamed(".modinfo", ".modinf0"), ErrNotModule},
		"not from modpost":   {renamed(".gnu.linkonce.this_module", ".gnu.linkonce.that_module"), ErrNotModule},
		"stripped":           {withoutSymtab(t, image), ErrNotModule},
		"name with a slash":  {renamed("small32\x00\x00", "../../x\x00\x00"), ErrMalformed},
		"name of dots":       {renamed("small32\x00\x00", "..\x00\x00\x00\x00\x00\x00\x00"), ErrMalformed},
		"name with escape":   {renamed("small32\x00\x00", "small\x1b[\x00\x00"), ErrMalformed},
		"no string table":    {patched(50, 0xfff0), ErrMalformed},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.ko")
			if err := os.WriteFile(path, tc.content, 0o666); err != nil {
				t.Fatal(err)
			}
			m, err := Open(path)
			if !errors.Is(err, tc.want) || m != nil {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if s := err.Error(); strings.Contains(s, "\n") || !strings.HasPrefix(s, "cannot read module ") || strings.Contains(s, "\x1b") {
				t.Errorf("message %q", s)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.ko")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNotELF) {
		t.Errorf("directory: %v", err)
	}
}

func gzipped(s string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.Bytes()
}

// withoutSymtab turns the type of .symtab in a 32-bit file into another.
func withoutSymtab(t *testing.T, image []byte) []byte {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Clone(image)
	for i, s := range f.Sections {
		if s.Type == elf.SHT_SYMTAB {
			at := binary.LittleEndian.Uint32(b[0x20:]) + uint32(i)*40 + 4
			binary.LittleEndian.PutUint32(b[at:], uint32(elf.SHT_PROGBITS))
		}
	}
	return b
}

// describe writes calls as "caller -> callee", ignoring the compiler's tracing hook.
func describe(m *Module) []string {
	var got []string
	for _, c := range m.Calls {
		if c.Symbol == "__fentry__" {
			continue
		}
		arrow, where := "->", "own"
		if c.Tail {
			arrow = "~>"
		}
		if c.Import {
			where = "import"
		} else if m.Funcs[c.Callee].Name != c.Symbol {
			where = "not " + m.Funcs[c.Callee].Name
		}
		f, _ := m.FuncAt(c.Section, c.End-1)
		got = append(got, fmt.Sprintf("%s %s %s %s", f.Name, arrow, where, c.Symbol))
	}
	return got
}

func TestCalls(t *testing.T) {
	chain := []string{
		// .text
		"third ~> import vmalloc",
		"second ~> own third",
		"first ~> own second",
		"namesake ~> import vzalloc",
		"other_file -> own namesake",
		// .text.unlikely
		"direct -> import vmalloc",
		"direct -> import vmalloc",
		"leaf -> import vmalloc",
		"middle ~> own leaf",
		"twosites ~> import vmalloc",
		"twosites ~> import vmalloc",
		"namesake ~> import vmalloc",
		"complain ~> import _printk",
		"left ~> import vfree",
		"right ~> import vfree",
		"either ~> own left",
		"either ~> own right",
		"chilly.cold -> own complain",
		"chilly.cold -> import vmalloc",
		"chilly.cold -> own complain",
		// .exit.text
		"chain_exit -> import vfree",
		// .init.text
		"chain_init -> own direct",
		"chain_init -> own first",
		"chain_init -> own middle",
		"chain_init -> own twosites",
		"chain_init -> own namesake",
		"chain_init -> own other_file",
		"chain_init -> import __x86_indirect_thunk_rax",
		"chain_init -> import vmalloc",
		"chain_init -> own either",
		"chain_init -> own chilly",
	}
	tests := map[string][]string{
		"chain-dwarf5": chain,
		"chain-dwarf4": chain,
		"hello-kernel": {
			"hello_exit ~> import _printk",
			"myfunc1 -> import _printk", "myfunc1 ~> import vmalloc",
			"myfunc2 -> import _printk", "myfunc2 -> import vmalloc", "myfunc2 ~> import vmalloc",
			"myfunc3 -> import _printk", "myfunc3 -> import vmalloc", "myfunc3 ~> import vfree",
			"myfunc4 -> import _printk", "myfunc4 -> import vmalloc", "myfunc4 -> import vmalloc", "myfunc4 ~> import vfree",
			"hello_init -> import _printk",
			"hello_init -> own myfunc1", "hello_init -> own myfunc2", "hello_init -> own myfunc3", "hello_init -> own myfunc4",
		},
		"small32": {
			"jumps ~> import vmalloc", "hops ~> own jumps", "cleanup_module -> import vmalloc",
			"init_module -> import vmalloc", "init_module -> own hops",
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, describe(fixture(t, name))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	m := fixture(t, "chain-dwarf5")
	for i, f := range m.Funcs {
		if f.Size == 0 {
			t.Errorf("%s has no size", f.Name)
		}
		for _, off := range []uint64{f.Offset, f.Offset + f.Size - 1} {
			if got, ok := m.FuncAt(f.Section, off); !ok || got != f {
				t.Errorf("at %d of section %d: %+v, want %+v", off, f.Section, got, f)
			}
		}
		switch hot := m.Funcs[m.Hot(i)].Name; {
		case f.Name == "chilly.cold" && hot != "chilly", f.Name != "chilly.cold" && hot != f.Name:
			t.Errorf("%s is part of %s", f.Name, hot)
		}
	}
	for _, at := range []struct {
		section int
		offset  uint64
	}{{-1, 0}, {0, 1 << 40}, {0, ^uint64(0)}, {len(m.Sections), 0}, {-1, ^uint64(0)}} {
		if f, ok := m.FuncAt(at.section, at.offset); ok {
			t.Errorf("at %d of section %d: %+v, want none", at.offset, at.section, f)
		}
		if c, ok := m.CallEndingAt(at.section, at.offset); ok {
			t.Errorf("call at %d of section %d: %+v, want none", at.offset, at.section, c)
		}
	}
	for _, c := range m.Calls {
		if got, ok := m.CallEndingAt(c.Section, c.End); !ok || got != c {
			t.Errorf("call ending at %d: %+v, want %+v", c.End, got, c)
		}
		if got, ok := m.CallEndingAt(c.Section, c.End-1); ok {
			t.Errorf("call ending at %d: %+v, want none", c.End-1, got)
		}
	}
	for from, want := range map[string][]string{
		"twosites": {"vmalloc", "vmalloc"},
		"either":   {"left", "right"},
		"namesake": {"vzalloc", "vmalloc"}, // two functions of one name
		"direct":   nil,
		"nobody":   nil,
	} {
		var got []string
		for _, c := range m.TailCalls(from) {
			got = append(got, c.Symbol)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("tail calls of %s, -want +got:\n%s", from, diff)
		}
	}
	if got := (&Module{}).TailCalls("x"); got != nil {
		t.Errorf("empty module has tail calls %v", got)
	}
}

func TestDebugInfoApart(t *testing.T) {
	for _, name := range []string{"chain-dwarf5", "chain-dwarf4", "small32"} {
		m := fixture(t, name)
		info, err := m.DebugInfo()
		if err != nil {
			t.Fatal(err)
		}
		end := uint64(0)
		for i, s := range m.Sections {
			if info.Bases[i] <= end {
				t.Errorf("%s: %s at %#x, the one before ends at %#x", name, s.Name, info.Bases[i], end)
			}
			end = info.Bases[i] + s.Size
		}
		if len(info.Units) == 0 {
			t.Errorf("%s: no units", name)
		}
	}
	if _, err := (&Module{}).DebugInfo(); !errors.Is(err, ErrNoDebugInfo) {
		t.Errorf("without debug information: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	small := unpacked(f, "small32")
	f.Add(small)
	f.Add(small[:len(small)/2])
	f.Add(gzipped(string(small)))
	for _, name := range []string{"small32", "hello-kernel"} {
		raw, err := os.ReadFile(filepath.Join("testdata", name+".ko.xz"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parse("/x/fuzz.ko", raw, 1<<20)
		if (m == nil) == (err == nil) {
			t.Fatalf("module %v, error %v", m, err)
		}
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		for i, fn := range m.Funcs {
			if s := m.Sections[fn.Section]; fn.Offset >= s.Size || fn.Size > s.Size-fn.Offset {
				t.Errorf("function %+v is outside of %+v", fn, s)
			}
			m.TailCallsIn(m.Hot(i))
		}
		for _, c := range m.Calls {
			if c.End > m.Sections[c.Section].Size || !c.Import && m.Funcs[c.Callee].Name != c.Symbol {
				t.Errorf("call %+v", c)
			}
		}
		m.DebugInfo()
	})
}
