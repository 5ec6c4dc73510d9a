package symbolize

import (
	"bytes"
	"cmp"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"kedr/internal/target"
)

// lines finds source positions in a module's DWARF. Units are read when an
// address in them is asked for, and once.
type lines struct {
	data   *dwarf.Data
	bases  []uint64 // of each executable section, in the space that DWARF sees
	ranges []unitRange
	units  map[dwarf.Offset]*unit
}

type unitRange struct {
	lo, hi uint64
	entry  *dwarf.Entry
}

// unit is one compilation unit, read.
type unit struct {
	files []*dwarf.LineFile
	dir   string
	rows  []row
	subs  []*sub
}

// row is an entry of the line table, good up to the next one.
type row struct {
	addr uint64
	file string
	line int
	end  bool
}

// sub is a function, inlined or not.
type sub struct {
	ranges   [][2]uint64
	name     string
	callFile string
	callLine int
	inlined  []*sub
}

// sectionSpan is how far apart the sections are put; no module is that large.
const sectionSpan = 1 << 32

// openLines reads the index of a module's DWARF. In a relocatable file all
// sections begin at 0; they are put apart by moving the symbols that the
// relocations of the debug sections refer to.
func openLines(m *target.Module) (l *lines, err error) {
	defer func() {
		if r := recover(); r != nil {
			l, err = nil, fmt.Errorf("debug information is damaged: %v", r)
		}
	}()
	image := bytes.Clone(m.Image())
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	l = &lines{units: make(map[dwarf.Offset]*unit)}
	base := make(map[uint16]uint64)
	for i, s := range m.Sections {
		b := uint64(i+1) * sectionSpan
		if f.Class == elf.ELFCLASS32 {
			b = uint64(i+1) << 24
		}
		l.bases = append(l.bases, b)
		base[s.Index] = b
	}
	if err := moveSymbols(f, image, base); err != nil {
		return nil, err
	}
	// Anew, for it may have read symbols already.
	if f, err = elf.NewFile(bytes.NewReader(image)); err != nil {
		return nil, err
	}
	if l.data, err = f.DWARF(); err != nil {
		return nil, fmt.Errorf("reading debug information: %w", err)
	}
	return l, l.index()
}

// moveSymbols adds each section's base to the values of its symbols (Elf64_Sym,
// Elf32_Sym: include/uapi/linux/elf.h).
func moveSymbols(f *elf.File, image []byte, base map[uint16]uint64) error {
	symtab := f.SectionByType(elf.SHT_SYMTAB)
	if symtab == nil {
		return nil
	}
	size := uint64(24)
	if f.Class == elf.ELFCLASS32 {
		size = 16
	}
	if symtab.Offset > uint64(len(image)) || symtab.FileSize > uint64(len(image))-symtab.Offset {
		return target.ErrTruncated
	}
	le := binary.LittleEndian
	for t := image[symtab.Offset : symtab.Offset+symtab.FileSize]; uint64(len(t)) >= size; t = t[size:] {
		if f.Class == elf.ELFCLASS64 {
			le.PutUint64(t[8:], le.Uint64(t[8:])+base[le.Uint16(t[6:])])
		} else {
			le.PutUint32(t[4:], le.Uint32(t[4:])+uint32(base[le.Uint16(t[14:])]))
		}
	}
	return nil
}

func (l *lines) index() error {
	r := l.data.Reader()
	for {
		e, err := r.Next()
		if err != nil {
			return fmt.Errorf("reading debug information: %w", err)
		}
		if e == nil {
			break
		}
		if e.Tag == dwarf.TagCompileUnit {
			ranges, err := l.data.Ranges(e)
			if err != nil {
				return fmt.Errorf("reading debug information: %w", err)
			}
			for _, p := range ranges {
				l.ranges = append(l.ranges, unitRange{p[0], p[1], e})
			}
		}
		r.SkipChildren()
	}
	slices.SortFunc(l.ranges, func(a, b unitRange) int { return cmp.Compare(a.lo, b.lo) })
	return nil
}

// at returns the frames at an instruction, innermost inlined function first; the
// last is the function itself, without its name.
func (l *lines) at(section int, offset uint64) (frames []Frame) {
	defer func() {
		// debug/dwarf is written for files that can be trusted.
		if recover() != nil {
			frames = nil
		}
	}()
	pc := l.bases[section] + offset
	i, found := slices.BinarySearchFunc(l.ranges, pc, func(r unitRange, pc uint64) int { return cmp.Compare(r.lo, pc) })
	if !found {
		i--
	}
	if i < 0 || pc >= l.ranges[i].hi {
		return nil
	}
	u, err := l.unit(l.ranges[i].entry)
	if err != nil {
		return nil
	}
	file, line := u.line(pc)
	if file == "" {
		return nil
	}
	for _, s := range u.inlinedAt(pc) {
		frames = append(frames, Frame{Function: s.name, File: file, Line: line, Inlined: true})
		file, line = s.callFile, s.callLine
	}
	return append(frames, Frame{File: file, Line: line})
}

func (l *lines) unit(e *dwarf.Entry) (*unit, error) {
	if u, ok := l.units[e.Offset]; ok {
		return u, nil
	}
	u := &unit{}
	u.dir, _ = e.Val(dwarf.AttrCompDir).(string)
	lr, err := l.data.LineReader(e)
	if err != nil || lr == nil {
		return nil, fmt.Errorf("reading the line table: %w", err)
	}
	for {
		var le dwarf.LineEntry
		if lr.Next(&le) != nil {
			break // the end, or what of it can be read
		}
		rw := row{addr: le.Address, line: le.Line, end: le.EndSequence}
		if le.File != nil {
			rw.file = u.path(le.File.Name)
		}
		u.rows = append(u.rows, rw)
	}
	// An end and a beginning may share an address: the beginning counts.
	slices.SortStableFunc(u.rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(endFirst(a), endFirst(b)))
	})
	u.files = lr.Files()
	r := l.data.Reader()
	r.Seek(e.Offset)
	if _, err := r.Next(); err != nil {
		return nil, err
	}
	if u.subs, err = l.children(r, u, 0); err != nil {
		return nil, err
	}
	l.units[e.Offset] = u
	return u, nil
}

func endFirst(r row) int {
	if r.end {
		return 0
	}
	return 1
}

func (u *unit) path(name string) string {
	if !filepath.IsAbs(name) && u.dir != "" {
		name = filepath.Join(u.dir, name)
	}
	return filepath.Clean(name)
}

func (u *unit) line(pc uint64) (string, int) {
	i, _ := slices.BinarySearchFunc(u.rows, pc, func(r row, pc uint64) int {
		if r.addr <= pc {
			return -1
		}
		return 1
	})
	if i == 0 || u.rows[i-1].end {
		return "", 0
	}
	return u.rows[i-1].file, u.rows[i-1].line
}

// maxDepth bounds how deep blocks and inlined functions may nest.
const maxDepth = 256

// children reads the functions among an entry's children: those of a unit, or
// those inlined into a function, however many blocks they are in.
func (l *lines) children(r *dwarf.Reader, u *unit, depth int) ([]*sub, error) {
	var subs []*sub
	for {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil || e.Tag == 0 {
			return subs, nil
		}
		switch {
		case depth > maxDepth:
			r.SkipChildren()
		case e.Tag == dwarf.TagSubprogram || e.Tag == dwarf.TagInlinedSubroutine:
			ranges, err := l.data.Ranges(e)
			if err != nil {
				return nil, err
			}
			s := &sub{ranges: ranges, name: l.name(e, 0)}
			if n, ok := e.Val(dwarf.AttrCallFile).(int64); ok && n >= 0 && int(n) < len(u.files) && u.files[n] != nil {
				s.callFile = u.path(u.files[n].Name)
			}
			if n, ok := e.Val(dwarf.AttrCallLine).(int64); ok {
				s.callLine = int(n)
			}
			if e.Children {
				if s.inlined, err = l.children(r, u, depth+1); err != nil {
					return nil, err
				}
			}
			if len(ranges) > 0 {
				subs = append(subs, s)
			}
		case e.Tag == dwarf.TagLexDwarfBlock && e.Children:
			inner, err := l.children(r, u, depth+1)
			if err != nil {
				return nil, err
			}
			subs = append(subs, inner...)
		default:
			r.SkipChildren()
		}
	}
}

// name follows an entry to where its name is.
func (l *lines) name(e *dwarf.Entry, depth int) string {
	if s, ok := e.Val(dwarf.AttrName).(string); ok {
		return s
	}
	for _, attr := range []dwarf.Attr{dwarf.AttrAbstractOrigin, dwarf.AttrSpecification} {
		off, ok := e.Val(attr).(dwarf.Offset)
		if !ok || depth > 8 {
			continue
		}
		r := l.data.Reader()
		r.Seek(off)
		if to, err := r.Next(); err == nil && to != nil {
			return l.name(to, depth+1)
		}
	}
	return ""
}

// inlinedAt returns the functions inlined at pc, innermost first.
func (u *unit) inlinedAt(pc uint64) []*sub {
	var chain []*sub
	for level := u.subs; ; {
		i := slices.IndexFunc(level, func(s *sub) bool {
			return slices.ContainsFunc(s.ranges, func(r [2]uint64) bool { return pc >= r[0] && pc < r[1] })
		})
		if i < 0 {
			break
		}
		chain = append(chain, level[i])
		level = level[i].inlined
	}
	if len(chain) > 0 {
		chain = chain[1:] // the function itself
	}
	slices.Reverse(chain)
	return chain
}

// lazyLines opens a module's DWARF at first use.
func lazyLines(m *target.Module) func() *lines {
	return sync.OnceValue(func() *lines {
		if !m.HasLines {
			return nil
		}
		l, err := openLines(m)
		if err != nil {
			return nil
		}
		return l
	})
}
