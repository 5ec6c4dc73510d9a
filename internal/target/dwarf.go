package target

import (
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrNoDebugInfo says that the module has no DWARF to take lines from.
var ErrNoDebugInfo = errors.New("module has no debug information")

// DebugInfo is the DWARF of a module in which every executable section has
// addresses of its own: as the file stands, each starts at 0 and an address
// may mean any of them.
type DebugInfo struct {
	Data  *dwarf.Data
	Units []dwarf.Offset // of the first entry of each unit in .debug_info
	Bases []uint64       // address of each of Module.Sections
}

// sectionGap keeps the end of one executable section from being the start of
// the next, and the first of them from 0, which DWARF takes for no address.
const sectionGap = 1 << 16

// DebugInfo relocates the DWARF of the module. It works anew at each call.
func (m *Module) DebugInfo() (info *DebugInfo, err error) {
	defer func() { // see parse
		if p := recover(); p != nil {
			info, err = nil, fmt.Errorf("%w: debug information: %v", ErrMalformed, p)
		}
	}()
	if !m.HasLines || m.file == nil {
		return nil, fmt.Errorf("%w: build it with -g to see source lines", ErrNoDebugInfo)
	}
	info = &DebugInfo{Bases: make([]uint64, len(m.Sections))}
	next := uint64(sectionGap)
	for i, s := range m.Sections {
		info.Bases[i] = next
		next = (next + s.Size + 2*sectionGap - 1) &^ (sectionGap - 1)
	}
	sections := make(map[string][]byte)
	for number, s := range m.file.Sections {
		switch s.Name {
		case ".debug_abbrev", ".debug_info", ".debug_line", ".debug_str", ".debug_ranges",
			".debug_line_str", ".debug_str_offsets", ".debug_rnglists", ".debug_addr":
		default:
			continue
		}
		if _, ok := sections[s.Name]; ok {
			continue
		}
		if sections[s.Name], err = m.relocatedBytes(number, s, info.Bases); err != nil {
			return nil, err
		}
	}
	info.Units = unitOffsets(sections[".debug_info"])
	info.Data, err = dwarf.New(sections[".debug_abbrev"], nil, nil, sections[".debug_info"],
		sections[".debug_line"], nil, sections[".debug_ranges"], sections[".debug_str"])
	if err != nil {
		return nil, fmt.Errorf("%w: debug information: %w", ErrMalformed, err)
	}
	for _, name := range []string{".debug_line_str", ".debug_str_offsets", ".debug_rnglists", ".debug_addr"} {
		if b, ok := sections[name]; ok {
			if err := info.Data.AddSection(name, b); err != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, name, err)
			}
		}
	}
	return info, nil
}

// relocatedBytes returns a copy of a section with its relocations applied.
// debug/elf would do so too, but with every section at 0.
func (m *Module) relocatedBytes(number int, s *elf.Section, bases []uint64) ([]byte, error) {
	b, err := m.bytesOf(s)
	if err != nil {
		return nil, err
	}
	b = append([]byte(nil), b...)
	order := binary.LittleEndian
	err = m.relocsOf(number, func(r reloc) {
		var width uint64
		switch {
		case m.Machine == elf.EM_386 && r.typ == uint32(elf.R_386_32),
			m.Machine == elf.EM_X86_64 && r.typ == uint32(elf.R_X86_64_32):
			width = 4
		case m.Machine == elf.EM_X86_64 && r.typ == uint32(elf.R_X86_64_64):
			width = 8
		default:
			return
		}
		if uint64(r.symbol) >= uint64(len(m.syms)) || r.offset > uint64(len(b)) || uint64(len(b))-r.offset < width {
			return
		}
		sym := &m.syms[r.symbol]
		if sym.section == elf.SHN_UNDEF || sym.section >= elf.SHN_LORESERVE {
			return
		}
		value := sym.value + uint64(r.addend)
		if at, ok := m.loads[int(sym.section)]; ok {
			value += bases[at]
		}
		place := b[r.offset:]
		switch {
		case width == 8:
			order.PutUint64(place, value)
		case m.Machine == elf.EM_386: // the addend is in place
			order.PutUint32(place, order.Uint32(place)+uint32(value))
		default:
			order.PutUint32(place, uint32(value))
		}
	})
	return b, err
}

// unitOffsets walks the unit headers of .debug_info (DWARF 5, section 7.5.1)
// and returns where the first entry of each unit of code is.
func unitOffsets(info []byte) []dwarf.Offset {
	const (
		utCompile, utPartial = 0x01, 0x03
		utSkeleton           = 0x04
	)
	order := binary.LittleEndian
	var units []dwarf.Offset
	for pos := uint64(0); uint64(len(info))-pos >= 12; {
		length, header, word := uint64(order.Uint32(info[pos:])), uint64(4), uint64(4)
		if length == 0xffffffff { // 64-bit DWARF
			length, header, word = order.Uint64(info[pos+4:]), 12, 8
		}
		rest := uint64(len(info)) - pos - header
		if length > rest || length < 2+1+1+word {
			break
		}
		version := order.Uint16(info[pos+header:])
		first := pos + header + 2 + word + 1 // version, abbreviations, address size
		if version >= 5 {
			first++ // unit type
			switch info[pos+header+2] {
			case utCompile, utPartial:
			case utSkeleton:
				first += 8 // id of the other half
			default:
				first = 0 // type units have no code
			}
		}
		if first != 0 && first < pos+header+length {
			units = append(units, dwarf.Offset(first))
		}
		pos += header + length
	}
	return units
}
