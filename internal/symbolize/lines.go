package symbolize

import (
	"cmp"
	"debug/dwarf"
	"fmt"
	"path/filepath"
	"slices"

	"kedr/internal/target"
)

// lines finds source positions in a module's DWARF. Units are read when an
// address in them is asked for, and once.
type lines struct {
	data  *dwarf.Data
	bases []uint64               // of each executable section, see target.DebugInfo
	index []span                 // of units
	units map[dwarf.Offset]*unit // by the offset of their first entry
}

// span is a range of addresses, and the offset in .debug_info of what has it.
type span struct {
	lo, hi uint64
	entry  dwarf.Offset
}

// unit is one compilation unit, read.
type unit struct {
	files []string // by file index, "" where there is none
	rows  []row    // sorted by address
	index []span   // of functions
	subs  map[dwarf.Offset]*sub
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

// Bounds on what a file can make us read: the deepest nesting of blocks and
// inlined functions, the longest way to an entry's name, the rows of one
// unit's line table.
const (
	maxDepth  = 256
	maxOrigin = 8
	maxRows   = 1 << 24
)

// openLines reads the index of a module's DWARF: which unit has which addresses.
func openLines(m *target.Module) (l *lines, err error) {
	defer func() {
		// debug/dwarf is written for files that can be trusted.
		if p := recover(); p != nil {
			l, err = nil, fmt.Errorf("debug information is damaged: %v", p)
		}
	}()
	info, err := m.DebugInfo()
	if err != nil {
		return nil, err
	}
	l = &lines{data: info.Data, bases: info.Bases, units: make(map[dwarf.Offset]*unit)}
	r := l.data.Reader()
	for _, off := range info.Units {
		r.Seek(off)
		e, err := r.Next()
		if err != nil || e == nil || e.Tag != dwarf.TagCompileUnit && e.Tag != dwarf.TagSkeletonUnit {
			continue // another unit may be whole
		}
		l.index = appendSpans(l.index, l.data, e)
	}
	sortSpans(l.index)
	return l, nil
}

// appendSpans appends the ranges of an entry that has any.
func appendSpans(to []span, data *dwarf.Data, e *dwarf.Entry) []span {
	ranges, err := data.Ranges(e)
	if err != nil {
		return to
	}
	for _, p := range ranges {
		if p[0] < p[1] {
			to = append(to, span{p[0], p[1], e.Offset})
		}
	}
	return to
}

func sortSpans(s []span) { slices.SortFunc(s, func(a, b span) int { return cmp.Compare(a.lo, b.lo) }) }

// find returns the span that holds pc; spans of one kind do not overlap.
func find(spans []span, pc uint64) (span, bool) {
	i, found := slices.BinarySearchFunc(spans, pc, func(s span, pc uint64) int { return cmp.Compare(s.lo, pc) })
	if !found {
		i--
	}
	if i < 0 || pc >= spans[i].hi {
		return span{}, false
	}
	return spans[i], true
}

// at returns the frames at an instruction, innermost inlined function first;
// the last is the function itself. It returns nil where nothing is known.
func (l *lines) at(section int, offset uint64) (frames []Frame) {
	defer func() {
		if recover() != nil { // see openLines
			frames = nil
		}
	}()
	if section >= len(l.bases) {
		return nil
	}
	pc := l.bases[section] + offset
	s, ok := find(l.index, pc)
	if !ok {
		return nil
	}
	u := l.unit(s.entry)
	file, line := u.line(pc)
	chain := l.chainAt(u, pc)
	for i, sub := range chain {
		frames = append(frames, Frame{Function: sub.name, File: file, Line: line, Inlined: i < len(chain)-1})
		file, line = sub.callFile, sub.callLine
	}
	if frames == nil && file != "" { // assembly: lines, but no functions
		frames = []Frame{{File: file, Line: line}}
	}
	return frames
}

// unit reads the line table and the list of functions of a unit. What of it
// cannot be read stays empty.
func (l *lines) unit(off dwarf.Offset) *unit {
	if u, ok := l.units[off]; ok {
		return u
	}
	u := &unit{subs: make(map[dwarf.Offset]*sub)}
	l.units[off] = u
	r := l.data.Reader()
	r.Seek(off)
	e, err := r.Next()
	if err != nil || e == nil {
		return u
	}
	l.readRows(u, e)
	l.indexFuncs(u, r)
	return u
}

func (l *lines) readRows(u *unit, e *dwarf.Entry) {
	lr, err := l.data.LineReader(e)
	if err != nil || lr == nil {
		return
	}
	dir, _ := e.Val(dwarf.AttrCompDir).(string)
	paths := make(map[*dwarf.LineFile]string)
	path := func(f *dwarf.LineFile) string {
		if f == nil {
			return ""
		}
		p, ok := paths[f]
		if !ok {
			p = absolute(dir, f.Name)
			paths[f] = p
		}
		return p
	}
	for len(u.rows) < maxRows {
		var le dwarf.LineEntry
		if lr.Next(&le) != nil {
			break // the end, or what of it can be read
		}
		u.rows = append(u.rows, row{addr: le.Address, file: path(le.File), line: le.Line, end: le.EndSequence})
	}
	// Of several rows with one address the last counts, and a sequence that
	// begins where another ends.
	slices.SortStableFunc(u.rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(b2i(b.end), b2i(a.end)))
	})
	for _, f := range lr.Files() {
		u.files = append(u.files, path(f))
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// absolute joins a file name with the directory of compilation, if there is
// one, and cleans it.
func absolute(dir, name string) string {
	if name == "" {
		return ""
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	return filepath.Clean(name)
}

// indexFuncs lists the functions of the unit whose first entry r has just
// read. Types and variables are passed over without being looked into, but
// for namespaces (C++, Rust) and what they hold.
func (l *lines) indexFuncs(u *unit, r *dwarf.Reader) {
	for depth := 1; depth > 0; {
		e, err := r.Next()
		if err != nil || e == nil {
			break
		}
		switch e.Tag {
		case 0:
			depth--
			continue
		case dwarf.TagSubprogram:
			u.index = appendSpans(u.index, l.data, e)
		case dwarf.TagNamespace:
			if e.Children {
				depth++
			}
			continue
		case dwarf.TagStructType, dwarf.TagClassType, dwarf.TagUnionType, dwarf.TagEnumerationType:
			if depth > 1 && e.Children { // methods
				depth++
				continue
			}
		}
		r.SkipChildren()
	}
	sortSpans(u.index)
}

// line returns the source position of an instruction.
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

// chainAt returns the functions that pc is in, innermost inlined one first,
// the one that is not inlined last.
func (l *lines) chainAt(u *unit, pc uint64) []*sub {
	at, ok := find(u.index, pc)
	if !ok {
		return nil
	}
	s, ok := u.subs[at.entry]
	if !ok {
		r := l.data.Reader()
		r.Seek(at.entry)
		e, err := r.Next()
		if err != nil || e == nil {
			return nil
		}
		s = &sub{name: l.name(e, 0)}
		if e.Children {
			s.inlined = l.inlinedIn(r, u, 0)
		}
		u.subs[at.entry] = s
	}
	chain := []*sub{s}
	for {
		i := slices.IndexFunc(s.inlined, func(s *sub) bool {
			return slices.ContainsFunc(s.ranges, func(r [2]uint64) bool { return pc >= r[0] && pc < r[1] })
		})
		if i < 0 {
			slices.Reverse(chain)
			return chain
		}
		s = s.inlined[i]
		chain = append(chain, s)
	}
}

// inlinedIn reads the functions inlined into one, however many blocks they are
// in, up to the end of its children.
func (l *lines) inlinedIn(r *dwarf.Reader, u *unit, depth int) []*sub {
	var subs []*sub
	for {
		e, err := r.Next()
		if err != nil || e == nil || e.Tag == 0 {
			return subs
		}
		switch {
		case depth > maxDepth:
			r.SkipChildren()
		case e.Tag == dwarf.TagInlinedSubroutine:
			s := &sub{name: l.name(e, 0)}
			s.ranges, _ = l.data.Ranges(e)
			if n, ok := e.Val(dwarf.AttrCallFile).(int64); ok && n >= 0 && n < int64(len(u.files)) {
				s.callFile = u.files[n]
			}
			if n, ok := e.Val(dwarf.AttrCallLine).(int64); ok {
				s.callLine = int(n)
			}
			if e.Children {
				s.inlined = l.inlinedIn(r, u, depth+1)
			}
			if len(s.ranges) > 0 {
				subs = append(subs, s)
			}
		case e.Tag == dwarf.TagLexDwarfBlock && e.Children:
			subs = append(subs, l.inlinedIn(r, u, depth+1)...)
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
		if !ok || depth >= maxOrigin {
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
