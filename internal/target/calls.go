package target

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"sort"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// reloc is an entry of a relocation section of either width.
type reloc struct {
	offset uint64
	symbol uint32
	typ    uint32
	addend int64 // 0 in the format of 32-bit x86, which has it in place
}

// relocsOf calls f for the relocations of the section with that ELF number.
func (m *Module) relocsOf(section int, f func(reloc)) error {
	for _, s := range m.file.Sections {
		if int(s.Info) != section {
			continue
		}
		order := binary.LittleEndian
		switch {
		case s.Type == elf.SHT_RELA && m.Machine == elf.EM_X86_64:
			b, err := m.bytesOf(s)
			if err != nil {
				return err
			}
			for ; len(b) >= 24; b = b[24:] { // sizeof(Elf64_Rela)
				info := order.Uint64(b[8:])
				f(reloc{order.Uint64(b), uint32(info >> 32), uint32(info), int64(order.Uint64(b[16:]))})
			}
		case s.Type == elf.SHT_REL && m.Machine == elf.EM_386:
			b, err := m.bytesOf(s)
			if err != nil {
				return err
			}
			for ; len(b) >= 8; b = b[8:] { // sizeof(Elf32_Rel)
				info := order.Uint32(b[4:])
				f(reloc{offset: uint64(order.Uint32(b)), symbol: info >> 8, typ: info & 0xff})
			}
		}
	}
	return nil
}

// branch is a direct call or jump, whether it leaves its function or not.
type branch struct {
	start, end uint64 // offsets of its first byte and of the one after its last
	call       bool
	reloc      reloc
}

// isBranchReloc tells whether a relocation of this type may be the operand of
// a direct call or jump: the distance from it to the symbol.
func (m *Module) isBranchReloc(typ uint32) bool {
	if m.Machine == elf.EM_386 {
		return typ == uint32(elf.R_386_PC32) || typ == uint32(elf.R_386_PLT32)
	}
	return typ == uint32(elf.R_X86_64_PC32) || typ == uint32(elf.R_X86_64_PLT32)
}

// relocated finds the calls and jumps of a section whose operands have
// relocations, sorted. The opcode before such an operand cannot be taken for
// anything else: the other instructions with an operand relative to the
// instruction pointer have there a ModRM byte with mod 0 and r/m 5, which
// none of the opcodes is (Intel SDM volume 2, table 2-2).
func (m *Module) relocated(number int, code []byte) ([]branch, error) {
	var found []branch
	err := m.relocsOf(number, func(r reloc) {
		if !m.isBranchReloc(r.typ) || r.offset < 1 || r.offset > uint64(len(code)) || uint64(len(code))-r.offset < 4 {
			return
		}
		if m.Machine == elf.EM_386 {
			r.addend = int64(int32(binary.LittleEndian.Uint32(code[r.offset:])))
		}
		b := branch{start: r.offset - 1, end: r.offset + 4, reloc: r}
		switch op := code[r.offset-1]; {
		case op == 0xe8:
			b.call = true
		case op == 0xe9:
		case op&0xf0 == 0x80 && r.offset >= 2 && code[r.offset-2] == 0x0f:
			b.start--
		default:
			return
		}
		found = append(found, b)
	})
	sort.Slice(found, func(i, j int) bool { return found[i].start < found[j].start })
	return found, err
}

// readCalls finds the direct calls and jumps between functions.
func (m *Module) readCalls() error {
	m.hot = make(map[int]int)
	for number, s := range m.file.Sections {
		section, ok := m.loads[number]
		if !ok {
			continue
		}
		code, err := m.bytesOf(s)
		if err != nil {
			return err
		}
		branches, err := m.relocated(number, code)
		if err != nil {
			return fmt.Errorf("relocations of %q: %w", clean(s.Name), err)
		}
		for _, b := range branches {
			m.addRelocated(section, b)
		}
		m.addLocal(section, code, branches)
	}
	sort.Slice(m.Calls, func(i, j int) bool {
		a, b := &m.Calls[i], &m.Calls[j]
		if a.Section != b.Section {
			return a.Section < b.Section
		}
		return a.End < b.End
	})
	return nil
}

// addRelocated records a call or jump whose operand has a relocation.
func (m *Module) addRelocated(section int, b branch) {
	if b.reloc.symbol == 0 || uint64(b.reloc.symbol) >= uint64(len(m.syms)) {
		return
	}
	s := &m.syms[b.reloc.symbol]
	// The compiler's way to return under CONFIG_RETHUNK.
	if s.name == "__x86_return_thunk" {
		return
	}
	if s.section == elf.SHN_UNDEF {
		if s.name != "" {
			m.Calls = append(m.Calls, Call{
				Section: section, End: b.end, Symbol: s.name, Import: true, Tail: !b.call,
				Conditional: !b.call && b.end-b.start > 5,
			})
		}
		return
	}
	if to, ok := m.loads[int(s.section)]; ok && s.section < elf.SHN_LORESERVE {
		// The operand counts from the end of the instruction, 4 bytes on.
		m.addOwn(section, b.end, b.call, to, s.value+uint64(b.reloc.addend)+4)
	}
}

// addOwn records a call or jump to the module's own code at offset in section
// to, unless that is not the start of another function.
func (m *Module) addOwn(section int, end uint64, call bool, to int, offset uint64) {
	callee := m.FuncIndex(to, offset)
	if callee < 0 || m.Funcs[callee].Offset != offset {
		return
	}
	if caller := m.FuncIndex(section, end-1); caller >= 0 && !call {
		switch {
		case caller == callee: // a loop
			return
		case isCold(m.Funcs[callee].Name, m.Funcs[caller].Name):
			m.hot[callee] = caller
			return
		case isCold(m.Funcs[caller].Name, m.Funcs[callee].Name):
			return
		}
	}
	m.Calls = append(m.Calls, Call{Section: section, End: end, Symbol: m.Funcs[callee].Name, Tail: !call, Callee: callee})
}

// isCold tells whether part is the name that GCC gives to the unlikely code of
// the function of that name: foo.cold, or foo.cold.3 up to GCC 8.
func isCold(part, of string) bool {
	rest, ok := strings.CutPrefix(part, of)
	return ok && (rest == ".cold" || strings.HasPrefix(rest, ".cold."))
}

// addLocal records the calls and jumps within a section that the assembler
// resolved, of which only the code itself tells. It decodes each function from
// its start. What the decoder does not know is skipped by the byte, and the
// known branches tell when it has lost step; a branch that such bytes only
// seem to be would have to hit the very start of a function to be taken.
func (m *Module) addLocal(section int, code []byte, known []branch) {
	mode := 64
	if m.Machine == elf.EM_386 {
		mode = 32
	}
	first := sort.Search(len(m.Funcs), func(i int) bool { return m.Funcs[i].Section >= section })
	for i := first; i < len(m.Funcs) && m.Funcs[i].Section == section; i++ {
		pos, end := m.Funcs[i].Offset, m.funcEnd(i)
		k := sort.Search(len(known), func(k int) bool { return known[k].start >= pos })
		for pos < end {
			for k < len(known) && known[k].start < pos {
				k++
			}
			if k < len(known) && known[k].start == pos {
				pos = known[k].end
				continue
			}
			inst, err := x86asm.Decode(code[pos:end], mode)
			if err != nil || inst.Len == 0 {
				pos += uint64(unknownLen(code[pos:end]))
				continue
			}
			next := pos + uint64(inst.Len)
			if k < len(known) && next > known[k].start {
				pos = known[k].start
				continue
			}
			// Between functions of one section the assembler shortens jumps
			// to a distance of one byte where it can.
			if rel, ok := inst.Args[0].(x86asm.Rel); ok && inst.Op != x86asm.XBEGIN {
				m.addOwn(section, next, inst.Op == x86asm.CALL, section, next+uint64(int64(rel)))
			}
			pos = next
		}
	}
}

// unknownLen returns the length of the instruction at the start of code, which
// the decoder does not know: 1 byte, to try again after it, but for those that
// the kernel's functions are full of.
func unknownLen(code []byte) int {
	switch {
	case len(code) >= 4 && code[0] == 0xf3 && code[1] == 0x0f && code[2] == 0x1e && code[3]&0xfe == 0xfa:
		return 4 // endbr64, endbr32
	case len(code) >= 3 && code[0] == 0x0f && code[1] == 0x01:
		return 3 // clac, stac and the like
	}
	return 1
}
