package target

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"strings"
)

// symbol is an entry of .symtab.
type symbol struct {
	name    string
	value   uint64
	size    uint64
	section elf.SectionIndex
	info    byte
}

func (s *symbol) typ() elf.SymType  { return elf.ST_TYPE(s.info) }
func (s *symbol) bind() elf.SymBind { return elf.ST_BIND(s.info) }

// maxSymbolName bounds a symbol's name, in bytes; the kernel's own bound is
// KSYM_NAME_LEN, 512 (include/linux/kallsyms.h, 6.1).
const maxSymbolName = 4096

// parseImage makes a Module of a decompressed file.
func parseImage(path string, image []byte) (*Module, error) {
	machine, err := checkHeader(image)
	if err != nil {
		return nil, err
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: section headers: fetch the file again", ErrTruncated)
	case err != nil:
		return nil, fmt.Errorf("%w: %w: rebuild or fetch the module again", ErrMalformed, err)
	}
	m := &Module{Path: path, Machine: machine, image: image, file: file}
	for _, s := range file.Sections {
		if s.Type == elf.SHT_NULL || s.Type == elf.SHT_NOBITS {
			continue
		}
		if end := s.Offset + s.FileSize; end < s.Offset || end > uint64(len(image)) {
			return nil, fmt.Errorf("%w: section %q ends past the end of the file: fetch the file again", ErrTruncated, clean(s.Name))
		}
	}
	if err := m.readIdentity(); err != nil {
		return nil, err
	}
	if err := m.readSymbols(); err != nil {
		return nil, err
	}
	m.readImports()
	m.readSections()
	m.readFuncs()
	if err := m.readCalls(); err != nil {
		return nil, err
	}
	info, lines := file.Section(".debug_info"), file.Section(".debug_line")
	m.HasLines = info != nil && info.Size > 0 && lines != nil && lines.Size > 0
	return m, nil
}

// checkHeader looks at the ELF header alone, so that a file of another kind is
// named for what it is before anything else in it is found wrong.
func checkHeader(image []byte) (elf.Machine, error) {
	if !bytes.HasPrefix(image, []byte(elf.ELFMAG)) {
		return 0, fmt.Errorf("%w: give the .ko file that insmod would be given", ErrNotELF)
	}
	if len(image) < 52 { // sizeof(Elf32_Ehdr)
		return 0, fmt.Errorf("%w: %d bytes are no ELF header: fetch the file again", ErrTruncated, len(image))
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(image[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	kind, machine := elf.Type(order.Uint16(image[16:])), elf.Machine(order.Uint16(image[18:]))
	class := elf.Class(image[elf.EI_CLASS])
	if order != binary.LittleEndian ||
		!(machine == elf.EM_X86_64 && class == elf.ELFCLASS64 || machine == elf.EM_386 && class == elf.ELFCLASS32) {
		return 0, fmt.Errorf("%w: built for %v (%v): give a module built for x86-64 or 32-bit x86", ErrArch, machine, class)
	}
	if kind != elf.ET_REL {
		return 0, fmt.Errorf("%w: ELF file of type %v, not relocatable: give the .ko file, not a program or vmlinux", ErrNotModule, kind)
	}
	var end uint64
	if class == elf.ELFCLASS64 {
		if len(image) < 64 { // sizeof(Elf64_Ehdr)
			return 0, fmt.Errorf("%w: %d bytes are no ELF header: fetch the file again", ErrTruncated, len(image))
		}
		end = order.Uint64(image[0x28:]) + uint64(order.Uint16(image[0x3a:]))*uint64(order.Uint16(image[0x3c:]))
	} else {
		end = uint64(order.Uint32(image[0x20:])) + uint64(order.Uint16(image[0x2e:]))*uint64(order.Uint16(image[0x30:]))
	}
	if end > uint64(len(image)) {
		return 0, fmt.Errorf("%w: section headers end at %d, the file at %d: fetch the file again", ErrTruncated, end, len(image))
	}
	return machine, nil
}

// bytesOf returns the content of a section, nil if it has none in the file.
// Compressed sections, which only debug information may be, are decompressed.
func (m *Module) bytesOf(s *elf.Section) ([]byte, error) {
	if s == nil || s.Type == elf.SHT_NULL || s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	if s.Flags&elf.SHF_COMPRESSED == 0 {
		// parseImage has checked the bounds.
		return m.image[s.Offset : s.Offset+s.FileSize : s.Offset+s.FileSize], nil
	}
	if s.Size > maxImage {
		return nil, fmt.Errorf("%w: section %q of %d bytes, at most %d are read", ErrTooLarge, clean(s.Name), s.Size, maxImage)
	}
	b, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("%w: section %q: %w", ErrMalformed, clean(s.Name), err)
	}
	return b, nil
}

// readIdentity finds what the module calls itself and what it was built for.
func (m *Module) readIdentity() error {
	modinfo, this := m.file.Section(".modinfo"), m.file.Section(".gnu.linkonce.this_module")
	if modinfo == nil || this == nil {
		return fmt.Errorf("%w: object file without .modinfo or .gnu.linkonce.this_module: give the .ko that modpost made, not a .o", ErrNotModule)
	}
	info, err := m.bytesOf(modinfo)
	if err != nil {
		return err
	}
	for len(info) > 0 {
		var field []byte
		field, info, _ = bytes.Cut(info, []byte{0})
		key, value, _ := strings.Cut(string(field), "=")
		switch {
		case key == "name" && m.Name == "":
			m.Name = value
		case key == "vermagic" && m.Vermagic == "":
			m.Vermagic = clean(strings.TrimRight(value, " "))
		case key == "depends":
			for dep := range strings.SplitSeq(value, ",") {
				if dep != "" {
					m.Depends = append(m.Depends, strings.ReplaceAll(clean(dep), "-", "_"))
				}
			}
		}
	}
	if m.Name == "" { // older kernels
		b, err := m.bytesOf(this)
		if err != nil {
			return err
		}
		m.Name = thisModuleName(b, m.Machine)
	}
	if m.Name == "" {
		m.Name, _, _ = strings.Cut(filepath.Base(m.Path), ".")
	}
	m.Name = strings.ReplaceAll(m.Name, "-", "_")
	// It becomes part of paths and of what a terminal is shown.
	if m.Name == "" || len(m.Name) > maxModuleName || strings.Contains(m.Name, "/") || strings.Trim(m.Name, ".") == "" ||
		clean(m.Name) != m.Name || strings.Contains(m.Name, " ") {
		return fmt.Errorf("%w: %q cannot be a module's name: rebuild the module", ErrMalformed, clean(m.Name))
	}
	note, err := m.bytesOf(m.file.Section(".note.gnu.build-id"))
	if err != nil {
		return err
	}
	m.BuildID = buildID(note)
	return nil
}

// maxModuleName is the longest name of a module, in bytes: MODULE_NAME_LEN
// less the final NUL, on 32 bits where it is longest (include/linux/moduleparam.h, 6.1).
const maxModuleName = 64 - 4 - 1

// thisModuleName reads name out of an initialised struct module, where it
// follows an enum and a list_head (include/linux/module.h, 6.1).
func thisModuleName(this []byte, machine elf.Machine) string {
	offset, length := 24, 64-8
	if machine == elf.EM_386 {
		offset, length = 12, 64-4
	}
	if len(this) < offset+length {
		return ""
	}
	name, _, _ := bytes.Cut(this[offset:offset+length], []byte{0})
	return string(name)
}

// StructModule returns the size of the kernel's struct module as the file has it, and where
// in it the module's name is; -1: nowhere.
func (m *Module) StructModule() (size, name int) {
	b, err := m.bytesOf(m.file.Section(".gnu.linkonce.this_module"))
	if err != nil {
		return 0, -1
	}
	return len(b), bytes.Index(b, append([]byte(m.Name), 0))
}

// buildID returns the first GNU build id in a note section, in hex: namesz,
// descsz, type, then name and descriptor, each padded to 4 bytes (elf(5)).
func buildID(note []byte) string {
	const ntGNUBuildID, maxID = 3, 64
	for len(note) >= 12 {
		name, desc := uint64(binary.LittleEndian.Uint32(note)), uint64(binary.LittleEndian.Uint32(note[4:]))
		typ := binary.LittleEndian.Uint32(note[8:])
		at := 12 + (name+3)&^3
		end := at + desc
		if end > uint64(len(note)) {
			return ""
		}
		if typ == ntGNUBuildID && string(note[12:12+name]) == "GNU\x00" && desc <= maxID {
			return hex.EncodeToString(note[at:end])
		}
		next := at + (desc+3)&^3
		if next > uint64(len(note)) {
			return ""
		}
		note = note[next:]
	}
	return ""
}

// readSymbols reads .symtab. debug/elf would do it too, but drops the null
// entry, which relocations count, and bounds no name.
func (m *Module) readSymbols() error {
	table := m.file.SectionByType(elf.SHT_SYMTAB)
	if table == nil || int(table.Link) >= len(m.file.Sections) {
		return fmt.Errorf("%w: no symbol table: take the module before it was stripped, or strip it with --strip-debug only", ErrNotModule)
	}
	entries, err := m.bytesOf(table)
	if err != nil {
		return err
	}
	names, err := m.bytesOf(m.file.Sections[table.Link])
	if err != nil {
		return err
	}
	size := 24 // sizeof(Elf64_Sym)
	if m.Machine == elf.EM_386 {
		size = 16
	}
	text, order := string(names), binary.LittleEndian
	m.SymbolCount = len(entries) / size
	m.syms = make([]symbol, m.SymbolCount)
	for i := range m.syms {
		e, s := entries[i*size:(i+1)*size], &m.syms[i]
		name := order.Uint32(e)
		if m.Machine == elf.EM_386 {
			s.value, s.size = uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:]))
			s.info, s.section = e[12], elf.SectionIndex(order.Uint16(e[14:]))
		} else {
			s.info, s.section = e[4], elf.SectionIndex(order.Uint16(e[6:]))
			s.value, s.size = order.Uint64(e[8:]), order.Uint64(e[16:])
		}
		if uint64(name) >= uint64(len(text)) {
			if name != 0 {
				return fmt.Errorf("%w: symbol %d has its name outside the string table: rebuild or fetch the module again", ErrMalformed, i)
			}
			continue
		}
		rest := text[name:]
		end := strings.IndexByte(rest[:min(len(rest), maxSymbolName+1)], 0)
		if end < 0 {
			return fmt.Errorf("%w: symbol %d has a name without an end: rebuild or fetch the module again", ErrMalformed, i)
		}
		s.name = rest[:end]
	}
	return nil
}

// readImports collects the undefined symbols.
func (m *Module) readImports() {
	seen := make(map[string]bool)
	for i := 1; i < len(m.syms); i++ {
		s := &m.syms[i]
		// The last is the linker's business: no one provides it, and the
		// kernel's build ignores it too (scripts/mod/modpost.c, 6.1).
		if s.section != elf.SHN_UNDEF || s.name == "" || seen[s.name] || s.name == "_GLOBAL_OFFSET_TABLE_" {
			continue
		}
		seen[s.name] = true
		m.Imports = append(m.Imports, Import{Name: s.name, Weak: s.bind() == elf.STB_WEAK})
	}
	sort.Slice(m.Imports, func(i, j int) bool { return m.Imports[i].Name < m.Imports[j].Name })
}

// readSections collects the executable sections and, for each, the symbol that
// will tell its address.
func (m *Module) readSections() {
	const want = elf.SHF_ALLOC | elf.SHF_EXECINSTR
	m.loads = make(map[int]int)
	for i, s := range m.file.Sections {
		if s.Type != elf.SHT_PROGBITS || s.Flags&(want|elf.SHF_COMPRESSED) != want || s.Size == 0 {
			continue
		}
		// Copied over other code by apply_alternatives, never run in its place.
		if s.Name == ".altinstr_replacement" {
			continue
		}
		m.loads[i] = len(m.Sections)
		// The kernel tells them by the same prefix (module_init_section,
		// kernel/module/main.c, 6.1).
		m.Sections = append(m.Sections, Section{Name: s.Name, Index: uint16(i), Size: s.Size, Init: strings.HasPrefix(s.Name, ".init")})
	}
	for i := 1; i < len(m.syms); i++ {
		s := &m.syms[i]
		at, ok := m.loads[int(s.section)]
		if !ok || s.section >= elf.SHN_LORESERVE {
			continue
		}
		sec := &m.Sections[at]
		if sec.Symbol != 0 {
			old := &m.syms[sec.Symbol]
			oldSec, newSec := old.typ() == elf.STT_SECTION, s.typ() == elf.STT_SECTION
			if oldSec || !newSec && old.value <= s.value {
				continue
			}
		}
		sec.Symbol, sec.SymbolValue = uint32(i), s.value
	}
}

// readFuncs collects the functions, one for each start.
func (m *Module) readFuncs() {
	type candidate struct {
		Func
		rank int
	}
	var all []candidate
	for i := 1; i < len(m.syms); i++ {
		s := &m.syms[i]
		at, ok := m.loads[int(s.section)]
		if !ok || s.section >= elf.SHN_LORESERVE || s.typ() != elf.STT_FUNC || s.name == "" || s.value >= m.Sections[at].Size {
			continue
		}
		c := candidate{Func: Func{Name: s.name, Section: at, Offset: s.value, Size: s.size}}
		// module_init and module_exit give a function a second name, which
		// says less than the one in the source.
		if s.name == "init_module" || s.name == "cleanup_module" {
			c.rank += 2
		}
		if s.bind() == elf.STB_LOCAL {
			c.rank++
		}
		all = append(all, c)
	}
	sort.SliceStable(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		if a.Section != b.Section {
			return a.Section < b.Section
		}
		if a.Offset != b.Offset {
			return a.Offset < b.Offset
		}
		return a.rank < b.rank
	})
	for _, c := range all {
		if n := len(m.Funcs); n > 0 && m.Funcs[n-1].Section == c.Section && m.Funcs[n-1].Offset == c.Offset {
			continue
		}
		m.Funcs = append(m.Funcs, c.Func)
	}
	for i := range m.Funcs {
		f := &m.Funcs[i]
		end := m.Sections[f.Section].Size
		if f.Size == 0 && i+1 < len(m.Funcs) && m.Funcs[i+1].Section == f.Section {
			end = m.Funcs[i+1].Offset
		}
		if f.Size == 0 || f.Size > end-f.Offset {
			f.Size = end - f.Offset
		}
	}
}

// clean makes a string of the file fit for one line of a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
}
