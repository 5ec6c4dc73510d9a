package target

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// readCalls finds the direct calls and jumps out of functions. Where an operand
// has a relocation, that names the callee; the assembler resolves calls within a
// section by itself, and those are found by decoding.
func (m *Module) readCalls(f *elf.File) error {
	relocs, err := m.readRelocs(f)
	if err != nil {
		return err
	}
	for index, sec := range m.sections {
		text, err := f.Sections[index].Data()
		if err != nil {
			return fmt.Errorf("%w (reading %s: %w)", ErrTruncated, f.Sections[index].Name, err)
		}
		byOffset := relocs[index]
		for off, to := range byOffset {
			m.addRelocated(sec, text, off, to)
		}
		for _, fn := range m.funcsOf(sec) {
			m.addResolved(fn, text, byOffset)
		}
	}
	slices.SortFunc(m.Calls, func(a, b Call) int {
		return cmp.Or(cmp.Compare(a.Section, b.Section), cmp.Compare(a.End, b.End))
	})
	m.tails = make(map[string][]Call)
	for _, c := range m.Calls {
		if c.Tail {
			if fn, ok := m.FuncAt(c.Section, c.End-1); ok {
				m.tails[fn.Name] = append(m.tails[fn.Name], c)
			}
		}
	}
	return nil
}

func (m *Module) funcsOf(section int) []Func {
	lo, _ := slices.BinarySearchFunc(m.Funcs, section, func(f Func, s int) int { return cmp.Compare(f.Section, s) })
	hi, _ := slices.BinarySearchFunc(m.Funcs, section+1, func(f Func, s int) int { return cmp.Compare(f.Section, s) })
	return m.Funcs[lo:hi]
}

// destination is where a relocation points.
type destination struct {
	symbol  string // an import
	section int
	offset  uint64
}

// readRelocs reads the PC-relative relocations of the code, by the section that
// they are in and the offset of the operand.
func (m *Module) readRelocs(f *elf.File) (map[elf.SectionIndex]map[uint64]destination, error) {
	symbols, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%w (reading the symbols: %w)", ErrTruncated, err)
	}
	out := make(map[elf.SectionIndex]map[uint64]destination)
	for _, s := range f.Sections {
		index := elf.SectionIndex(s.Info)
		if _, code := m.sections[index]; !code || s.Type != elf.SHT_RELA && s.Type != elf.SHT_REL {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("%w (reading %s: %w)", ErrTruncated, s.Name, err)
		}
		text, err := f.Sections[index].Data()
		if err != nil {
			return nil, fmt.Errorf("%w (reading %s: %w)", ErrTruncated, f.Sections[index].Name, err)
		}
		to := make(map[uint64]destination)
		for _, r := range relocations(f, s.Type, data, text) {
			if r.symbol == 0 || r.symbol > uint32(len(symbols)) {
				continue
			}
			sym := symbols[r.symbol-1]
			if sym.Section == elf.SHN_UNDEF {
				to[r.offset] = destination{symbol: sym.Name, section: -1}
				continue
			}
			if sec, ok := m.sections[sym.Section]; ok {
				// The operand is relative to its own end, four bytes on.
				to[r.offset] = destination{section: sec, offset: sym.Value + uint64(r.addend+4)}
			}
		}
		out[index] = to
	}
	return out, nil
}

type relocation struct {
	offset uint64
	symbol uint32
	addend int64
}

// relocations decodes a section of PC-relative relocations (System V ABI:
// Elf64_Rela on x86-64, Elf32_Rel with the addend in place on i386).
func relocations(f *elf.File, typ elf.SectionType, data, text []byte) []relocation {
	var out []relocation
	le := binary.LittleEndian
	switch {
	case f.Class == elf.ELFCLASS64 && typ == elf.SHT_RELA:
		for ; len(data) >= 24; data = data[24:] {
			info := le.Uint64(data[8:])
			switch elf.R_X86_64(info & 0xffffffff) {
			case elf.R_X86_64_PC32, elf.R_X86_64_PLT32:
				out = append(out, relocation{le.Uint64(data), uint32(info >> 32), int64(le.Uint64(data[16:]))})
			}
		}
	case f.Class == elf.ELFCLASS32 && typ == elf.SHT_REL:
		for ; len(data) >= 8; data = data[8:] {
			off, info := le.Uint32(data), le.Uint32(data[4:])
			switch elf.R_386(info & 0xff) {
			case elf.R_386_PC32, elf.R_386_PLT32:
				if uint64(off)+4 <= uint64(len(text)) {
					out = append(out, relocation{uint64(off), info >> 8, int64(int32(le.Uint32(text[off:])))})
				}
			}
		}
	}
	return out
}

// addRelocated enters the call or jump whose operand has a relocation.
func (m *Module) addRelocated(sec int, text []byte, off uint64, to destination) {
	if off < 2 || off+4 > uint64(len(text)) {
		return
	}
	call := Call{Section: sec, End: off + 4}
	switch op := text[off-1]; {
	case op == 0xe8:
	case op == 0xe9, op&0xf0 == 0x80 && text[off-2] == 0x0f: // jmp, jcc
		call.Tail = true
	default:
		return // an address, not a call
	}
	m.addCall(call, to)
}

// addResolved decodes a function for calls without a relocation.
func (m *Module) addResolved(fn Func, text []byte, relocs map[uint64]destination) {
	mode := 64
	if m.Machine == elf.EM_386 {
		mode = 32
	}
	if fn.Offset+fn.Size > uint64(len(text)) {
		return
	}
	code := text[fn.Offset : fn.Offset+fn.Size]
	for at := 0; at < len(code); {
		in, err := x86asm.Decode(code[at:], mode)
		if err != nil || in.Len == 0 {
			// Unknown to the decoder: it finds its way again after some bytes,
			// and a call it misses meanwhile only costs an inferred frame.
			at++
			continue
		}
		end := fn.Offset + uint64(at+in.Len)
		at += in.Len
		rel, ok := in.Args[0].(x86asm.Rel)
		if !ok || in.Len < 5 && in.Op == x86asm.CALL {
			continue
		}
		if _, has := relocs[end-4]; has {
			continue
		}
		to := destination{section: fn.Section, offset: end + uint64(int64(rel))}
		if to.offset-fn.Offset < fn.Size {
			continue // within the function
		}
		m.addCall(Call{Section: fn.Section, End: end, Tail: in.Op != x86asm.CALL}, to)
	}
}

func (m *Module) addCall(c Call, to destination) {
	if to.section < 0 {
		if c.Tail && strings.HasPrefix(to.symbol, "__x86_return_thunk") {
			return // that is how these kernels return
		}
		c.Symbol, c.Import = to.symbol, true
		m.Calls = append(m.Calls, c)
		return
	}
	fn, ok := m.FuncAt(to.section, to.offset)
	if !ok || fn.Offset != to.offset {
		return // into the middle of a function
	}
	if from, ok := m.FuncAt(c.Section, c.End-1); ok && c.Tail && whole(from.Name) == whole(fn.Name) {
		return // to the function's own cold part, or back
	}
	c.Symbol = fn.Name
	m.Calls = append(m.Calls, c)
}

// whole is the name of the function that a cold part belongs to.
func whole(name string) string {
	name, _, _ = strings.Cut(name, ".cold")
	return name
}
