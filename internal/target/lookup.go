package target

import "sort"

// FuncAt returns the function that has the byte at offset in the section with
// that index in m.Sections.
func (m *Module) FuncAt(section int, offset uint64) (Func, bool) {
	i := m.FuncIndex(section, offset)
	if i < 0 {
		return Func{}, false
	}
	return m.Funcs[i], true
}

// FuncIndex returns the index in m.Funcs of what FuncAt returns, or -1.
func (m *Module) FuncIndex(section int, offset uint64) int {
	i := sort.Search(len(m.Funcs), func(i int) bool {
		f := &m.Funcs[i]
		return f.Section > section || f.Section == section && f.Offset > offset
	}) - 1
	if i < 0 || m.Funcs[i].Section != section || offset-m.Funcs[i].Offset >= m.Funcs[i].Size {
		return -1
	}
	return i
}

// funcEnd returns the offset at which function i ends, or the next one starts
// if that is sooner, as it is where a symbol marks a second entry.
func (m *Module) funcEnd(i int) uint64 {
	f := &m.Funcs[i]
	end := f.Offset + f.Size
	if i+1 < len(m.Funcs) && m.Funcs[i+1].Section == f.Section {
		end = min(end, m.Funcs[i+1].Offset)
	}
	return end
}

// Hot returns the index in m.Funcs of the function that function i is a part
// of. That is i, unless the compiler has moved unlikely code of a function out
// of its way: then i is the part (foo.cold) and the result the function (foo).
func (m *Module) Hot(i int) int {
	if h, ok := m.hot[i]; ok {
		return h
	}
	return i
}

// CallEndingAt returns the direct call or jump whose last byte is just before
// end: for a return address, the call that it belongs to.
func (m *Module) CallEndingAt(section int, end uint64) (Call, bool) {
	i := m.firstCall(section, end)
	if i == len(m.Calls) || m.Calls[i].Section != section || m.Calls[i].End != end {
		return Call{}, false
	}
	return m.Calls[i], true
}

// firstCall returns the index of the first call in the section that ends at
// end or later.
func (m *Module) firstCall(section int, end uint64) int {
	return sort.Search(len(m.Calls), func(i int) bool {
		c := &m.Calls[i]
		return c.Section > section || c.Section == section && c.End >= end
	})
}

// TailCalls returns the tail calls in functions of that name, their cold parts
// included, sorted by section, then end. It looks at every function.
func (m *Module) TailCalls(from string) []Call {
	var calls []Call
	for i := range m.Funcs {
		if m.Funcs[m.Hot(i)].Name == from {
			calls = append(calls, m.TailCallsIn(i)...)
		}
	}
	return calls
}

// TailCallsIn returns the tail calls in the function with that index in
// m.Funcs, without those of its cold part, sorted by end.
func (m *Module) TailCallsIn(i int) []Call {
	var calls []Call
	f := &m.Funcs[i]
	for j := m.firstCall(f.Section, f.Offset+1); j < len(m.Calls); j++ {
		c := m.Calls[j]
		if c.Section != f.Section || c.End > m.funcEnd(i) {
			break
		}
		if c.Tail {
			calls = append(calls, c)
		}
	}
	return calls
}
