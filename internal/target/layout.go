package target

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Layouts knows the structures that a module was compiled with, by its debug information.
type Layouts struct {
	data    func() (*dwarf.Data, map[string]dwarf.Offset, error)
	structs map[string]*dwarf.StructType
}

// Layouts returns what the module's debug information, if it has any, says of structures.
// It is read when first asked.
func (m *Module) Layouts() *Layouts {
	l := &Layouts{structs: make(map[string]*dwarf.StructType)}
	var places map[string]dwarf.Offset
	var data *dwarf.Data
	read := sync.OnceValue(func() error {
		info, err := m.DebugInfo()
		if err != nil {
			return err
		}
		data = info.Data
		places, err = structures(data)
		return err
	})
	l.data = func() (*dwarf.Data, map[string]dwarf.Offset, error) {
		err := read()
		return data, places, err
	}
	return l
}

// structures finds the definitions of structures, the first of each name.
func structures(data *dwarf.Data) (map[string]dwarf.Offset, error) {
	places := make(map[string]dwarf.Offset)
	r := data.Reader()
	for {
		e, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("%w: debug information: %w", ErrMalformed, err)
		}
		if e == nil {
			return places, nil
		}
		if e.Tag == dwarf.TagCompileUnit {
			continue
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		declared, _ := e.Val(dwarf.AttrDeclaration).(bool)
		if _, known := places[name]; e.Tag == dwarf.TagStructType && name != "" && !declared && !known {
			places[name] = e.Offset
		}
		r.SkipChildren()
	}
}

var errNoStructure = errors.New("no such structure or member in the debug information")

func (l *Layouts) structure(name string) (*dwarf.StructType, error) {
	if s := l.structs[name]; s != nil {
		return s, nil
	}
	data, places, err := l.data()
	if err != nil {
		return nil, err
	}
	at, ok := places[name]
	if !ok {
		return nil, fmt.Errorf("struct %s: %w", name, errNoStructure)
	}
	t, err := data.Type(at)
	if err != nil {
		return nil, fmt.Errorf("struct %s: %w", name, err)
	}
	s, ok := t.(*dwarf.StructType)
	if !ok {
		return nil, fmt.Errorf("struct %s: %w", name, errNoStructure)
	}
	l.structs[name] = s
	return s, nil
}

// StructSize returns the size of a structure in bytes.
func (l *Layouts) StructSize(structure string) (uint32, error) {
	s, err := l.structure(structure)
	if err != nil {
		return 0, err
	}
	return uint32(s.ByteSize), nil
}

// Field returns where a member lies in a structure, in bytes; a path of several members
// goes through nested structures.
func (l *Layouts) Field(structure, path string) (uint32, error) {
	s, err := l.structure(structure)
	if err != nil {
		return 0, err
	}
	var offset int64
	var typ dwarf.Type = s
	for part := range strings.SplitSeq(path, ".") {
		at, t, ok := member(typ, part)
		if !ok {
			return 0, fmt.Errorf("struct %s, %s: %w", structure, path, errNoStructure)
		}
		offset, typ = offset+at, t
	}
	return uint32(offset), nil
}

// member finds a member by name, also in anonymous members.
func member(t dwarf.Type, name string) (int64, dwarf.Type, bool) {
	for {
		td, ok := t.(*dwarf.TypedefType)
		if !ok {
			break
		}
		t = td.Type
	}
	s, ok := t.(*dwarf.StructType)
	if !ok {
		return 0, nil, false
	}
	for _, f := range s.Field {
		if f.Name == name && f.BitSize == 0 {
			return f.ByteOffset, f.Type, true
		}
		if f.Name == "" {
			if at, t, ok := member(f.Type, name); ok {
				return f.ByteOffset + at, t, true
			}
		}
	}
	return 0, nil, false
}
