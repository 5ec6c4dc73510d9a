package probe

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"kedr/internal/probe/object"
)

// TestPacked holds what is read by us against what the library reads.
func TestPacked(t *testing.T) {
	want, err := loadKedr()
	if err != nil {
		t.Fatal(err)
	}
	got, err := object.Read(packed)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Names()) != len(want.Programs) {
		t.Errorf("%d programs, want %d", len(got.Names()), len(want.Programs))
	}
	for name, w := range want.Programs {
		g, err := got.Program(name)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(header(w), header(g)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if len(g.Instructions) != len(w.Instructions) {
			t.Fatalf("%s: %d instructions, want %d", name, len(g.Instructions), len(w.Instructions))
		}
		for i := range g.Instructions {
			if g, w := show(&g.Instructions[i]), show(&w.Instructions[i]); g != w {
				t.Fatalf("%s, instruction %d: %s, want %s", name, i, g, w)
			}
			f := btf.FuncMetadata(&g.Instructions[i])
			if f != nil && f.Name != g.Instructions[i].Symbol() {
				t.Errorf("%s, %s: its type is that of %s", name, g.Instructions[i].Symbol(), f.Name)
			}
		}
	}
	for name, w := range want.Maps {
		g := got.Maps[name]
		if g == nil {
			t.Fatalf("there is no map %s", name)
		}
		if d := cmp.Diff([]uint32{uint32(w.Type), w.KeySize, w.ValueSize, w.MaxEntries, w.Flags}, []uint32{uint32(g.Type), g.KeySize, g.ValueSize, g.MaxEntries, g.Flags}); d != "" {
			t.Errorf("map %s (-want +got):\n%s", name, d)
		}
		if name == constantMap {
			if d := cmp.Diff(w.Contents, g.Contents); d != "" {
				t.Errorf("the constants differ (-want +got):\n%s", d)
			}
		}
	}
	for name, w := range want.Variables {
		g := got.Variables[name]
		if g == nil || g.SectionName != w.SectionName || g.Offset != w.Offset || g.Size() != w.Size() {
			t.Errorf("variable %s: %v, want %v", name, g, w)
		}
	}
}

// TestPlaceValues: of maps that have one value, programs have the value and not the map, which
// nobody could look up then; the others stay maps.
func TestPlaceValues(t *testing.T) {
	c, err := readCompiled()
	if err != nil {
		t.Fatal(err)
	}
	placeValues(c)
	values, others := make(map[string]int), 0
	for name := range c.Maps {
		if slices.Contains(singles, name) && c.Maps[name].MaxEntries != 1 {
			t.Errorf("map %s has %d values", name, c.Maps[name].MaxEntries)
		}
	}
	for _, name := range []string{"release_tracepoint", "obtain_exit", "release_bulk"} {
		p, err := c.Program(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			switch {
			case !ins.IsLoadFromMap():
			case slices.Contains(singles, ins.Reference()):
				if ins.Src != asm.PseudoMapValue || ins.Constant != 0 {
					t.Errorf("%s: %v", name, ins)
				}
				values[ins.Reference()]++
			case ins.Src == asm.PseudoMapFD:
				others++
			}
		}
	}
	if values["known"] == 0 || values["freed"] == 0 || others == 0 {
		t.Errorf("%v, and %d maps", values, others)
	}
}

func header(p *ebpf.ProgramSpec) string {
	return fmt.Sprint(p.Name, p.Type, p.AttachType, p.AttachTo, p.SectionName, p.Flags, p.License, p.ByteOrder)
}

func show(ins *asm.Instruction) string {
	return fmt.Sprint(ins.OpCode, uint32(ins.OpCode), ins.Dst, ins.Src, ins.Offset, ins.Constant, ins.Symbol(), ins.Reference())
}

// TestPackedAnew sees that the two files belong together.
func TestPackedAnew(t *testing.T) {
	b, err := object.Pack(bytes.NewReader(_KedrBytes))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, packed) {
		t.Error("kedr.programs is not of kedr_bpfel.o: make generate")
	}
}

// TestDamaged wants an error, or programs that are others, and no panic.
func TestDamaged(t *testing.T) {
	for n := 0; n < len(packed); n += 1 + len(packed)/300 {
		for _, b := range [][]byte{packed[:n], flipped(packed, n)} {
			o, err := object.Read(b)
			if err != nil {
				continue
			}
			for _, name := range o.Names()[:1] {
				o.Program(name)
			}
		}
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x81
	return b
}
