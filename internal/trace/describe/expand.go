package describe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"kedr/internal/near"
	"kedr/internal/trace"
)

// ExpandError says why fields that were asked for can't be recorded.
type ExpandError struct {
	Expansion string // as it was asked for
	Reason    string
}

func (e *ExpandError) Error() string {
	return fmt.Sprintf("field %q can't be shown: %s", e.Expansion, e.Reason)
}

// Expansions are the fields of structures that are to be recorded with calls.
type Expansions struct {
	items []*expansion
}

// expansion is "struct.field", "parameter.field" or "function:parameter.field", where
// the field may be one of structures inside: "path.mnt".
type expansion struct {
	text     string
	function string // empty: any
	head     string // a parameter, "ret", or a structure
	path     []string

	used   bool
	reason string   // why a function that has what it names could not be used
	heads  []string // what functions have had that could have been named
}

// ParseExpansions reads the fields that were asked for.
func ParseExpansions(list []string) (*Expansions, error) {
	x := new(Expansions)
	for _, text := range list {
		e := &expansion{text: text}
		rest := text
		if function, after, ok := strings.Cut(text, ":"); ok {
			e.function, rest = function, after
		}
		rest = strings.TrimPrefix(rest, "struct ")
		rest = strings.ReplaceAll(rest, "->", ".")
		words := strings.Split(rest, ".")
		e.head, e.path = words[0], words[1:]
		if len(e.path) == 0 {
			return nil, &ExpandError{text, `it has to be "structure.field", "parameter.field" or "function:parameter.field"`}
		}
		for _, w := range append(words, e.function) {
			if !identifier(w) && !(w == "" && e.function == "") {
				return nil, &ExpandError{text, fmt.Sprintf("%q is no name of C", w)}
			}
		}
		if slices.Contains(words, "") {
			return nil, &ExpandError{text, "a name is missing at a dot"}
		}
		x.items = append(x.items, e)
	}
	return x, nil
}

func identifier(s string) bool {
	for i := range len(s) {
		if !isWord(s[i]) || i == 0 && isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

// unknown is an error where fields of a function were asked for whose parameters are
// not known.
func (x *Expansions) unknown(function string) error {
	if x == nil {
		return nil
	}
	for _, e := range x.items {
		if e.function == function {
			return &ExpandError{e.text, "the types of " + function + " are not known"}
		}
	}
	return nil
}

// Unused is an error if something was asked for that no function has that was described
// since: a name that is not right, most often.
func (x *Expansions) Unused() error {
	if x == nil {
		return nil
	}
	for _, e := range x.items {
		switch {
		case e.used:
		case e.reason != "":
			return &ExpandError{e.text, e.reason}
		case e.function != "":
			return &ExpandError{e.text, "no function " + e.function + " is traced"}
		default:
			slices.Sort(e.heads)
			return &ExpandError{e.text, "no function that is traced has a parameter " + e.head + " or a pointer to a structure " +
				e.head + near.Hint(e.head, slices.Compact(e.heads))}
		}
	}
	return nil
}

// expand adds what memory is to be recorded with calls of a function: the fields that
// were asked for, and texts as far as there is room.
func (d *Describer) expand(f *trace.Function, proto *btf.FuncProto, x *Expansions) error {
	if x != nil {
		for _, e := range x.items {
			if e.function != "" && e.function != f.Name {
				continue
			}
			if err := d.expandOne(f, proto, e); err != nil {
				return err
			}
		}
	}
	var texts []trace.Capture
	for i, p := range f.Params {
		place := place{function: f.Name, name: p.Name}
		if p.Type.Class == trace.String && p.Slot < trace.MaxArgs && d.text(proto.Params[i].Type, place) {
			texts = append(texts, textOf(i, p.Type))
		}
	}
	if f.Result.Class == trace.String {
		texts = append(texts, textOf(-1, f.Result))
	}
	texts = texts[:min(len(texts), trace.MaxCaptures-len(f.Captures))]
	f.Captures = append(texts, f.Captures...)
	return nil
}

func (d *Describer) expandOne(f *trace.Function, proto *btf.FuncProto, e *expansion) error {
	add := func(param int, t btf.Type, name string) error {
		byName := name == e.head
		ptr, ok := btf.As[*btf.Pointer](t)
		if !ok {
			if byName {
				e.reason = fmt.Sprintf("%s of %s is no pointer to a structure: it is %s", name, f.Name, declaration(t, ""))
			}
			return nil
		}
		s, structure := d.composite(ptr.Target)
		if s == nil {
			if byName {
				e.reason = fmt.Sprintf("%s of %s does not point to a structure that is known here: it is %s", name, f.Name, declaration(t, ""))
			}
			return nil
		}
		if !byName && structure != e.head && !slices.Contains(typedefsOf(ptr.Target), e.head) {
			e.heads = append(e.heads, name, structure)
			return nil
		}
		capture, reason := d.field(s, structure, e.path)
		// Another function's parameter of that name may be of another structure, and one of
		// that structure may be in a register.
		other := reason != "" && byName && structure != e.head
		if reason == "" && param >= 0 && f.Params[param].Slot >= trace.MaxArgs {
			reason, other = fmt.Sprintf("parameter %s of %s is not in a register, and is not recorded", name, f.Name), true
		}
		if reason != "" {
			if other && e.function == "" {
				e.reason = reason
				return nil
			}
			return &ExpandError{e.text, reason}
		}
		if len(f.Captures) == trace.MaxCaptures {
			return &ExpandError{e.text, fmt.Sprintf("of one call %d fields can be recorded, and more are wanted of %s", trace.MaxCaptures, f.Name)}
		}
		e.used = true
		capture.Param = param
		if !slices.ContainsFunc(f.Captures, func(c trace.Capture) bool { return c.Param == param && c.Field == capture.Field }) {
			f.Captures = append(f.Captures, capture)
		}
		return nil
	}
	for i, p := range proto.Params[:len(f.Params)] {
		if err := add(i, p.Type, p.Name); err != nil {
			return err
		}
	}
	if err := add(-1, proto.Return, resultName); err != nil {
		return err
	}
	if e.function != "" && !e.used {
		reason := e.reason
		if reason == "" {
			reason = f.Name + " has no parameter " + e.head + " and no pointer to a structure " + e.head + near.Hint(e.head, e.heads)
		}
		return &ExpandError{e.text, reason}
	}
	return nil
}

// composite returns the structure or union that a pointer points to, and its name. What
// is only declared, or comes without its members, may be in the kernel's types.
func (d *Describer) composite(t btf.Type) (btf.Type, string) {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		if len(t.Members) > 0 {
			return t, t.Name
		}
		return d.lookUp(t.Name), t.Name
	case *btf.Union:
		return t, t.Name
	case *btf.Fwd:
		return d.lookUp(t.Name), t.Name
	}
	return nil, ""
}

func (d *Describer) lookUp(name string) btf.Type {
	all, err := d.kernel.AnyTypesByName(name)
	if err != nil {
		return nil
	}
	var found btf.Type
	for _, t := range all {
		switch t := t.(type) {
		case *btf.Struct, *btf.Union:
			if found != nil {
				return nil // two of one name, in different files
			}
			found = t
		}
	}
	return found
}

// field finds a member by its path. Where it can't be recorded, a reason is given.
func (d *Describer) field(s btf.Type, structure string, path []string) (c trace.Capture, reason string) {
	c.Field = strings.Join(path, ".")
	t := s
	within := "struct " + structure
	if structure == "" {
		within = "the structure"
	}
	for i, name := range path {
		m, offset, ok := memberOf(t, name, 0)
		if !ok {
			inner := members(btf.UnderlyingType(t))
			if inner == nil {
				return c, fmt.Sprintf("%s is no structure but %s: only what lies in the structure itself can be recorded, not what it points to", within, declaration(t, ""))
			}
			return c, fmt.Sprintf("%s has no field %s%s", within, name, near.Hint(name, memberNames(t, 0)))
		}
		if m.BitfieldSize != 0 {
			return c, fmt.Sprintf("%s of %s is a bit field, of %d bits, which can't be recorded by itself", name, within, m.BitfieldSize)
		}
		c.Offset += offset.Bytes()
		t = m.Type
		p := place{structure: structure, name: name}
		if i < len(path)-1 {
			within = strings.Join(path[:i+1], ".")
			if s, ok := btf.As[*btf.Struct](t); ok {
				structure = s.Name
			}
			continue
		}
		if array, ok := btf.As[*btf.Array](t); ok && isChar(array.Type) && array.Nelems > 0 {
			c.Type = trace.Type{Class: trace.String, Name: declaration(t, ""), Size: min(int(array.Nelems), trace.MaxCapture)}
			return c, ""
		}
		c.Type = d.typeOf(t, p)
	}
	if c.Type.Class == trace.Struct || c.Type.Class == trace.Void || c.Type.Size > 8 {
		if names := memberNames(t, 0); len(names) > 0 {
			return c, fmt.Sprintf("%s is %s: name one of its fields: %s", c.Field, declaration(t, ""), strings.Join(names[:min(len(names), 12)], ", "))
		}
		return c, fmt.Sprintf("%s is %s: only integers, enumerations, pointers and arrays of char can be recorded", c.Field, declaration(t, ""))
	}
	return c, ""
}

func members(t btf.Type) []btf.Member {
	switch t := t.(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}

// memberOf finds a member, also in those without a name.
func memberOf(t btf.Type, name string, depth int) (btf.Member, btf.Bits, bool) {
	if depth > maxNesting {
		return btf.Member{}, 0, false
	}
	for _, m := range members(btf.UnderlyingType(t)) {
		if m.Name == name {
			return m, m.Offset, true
		}
		if m.Name == "" {
			if inner, offset, ok := memberOf(m.Type, name, depth+1); ok {
				return inner, m.Offset + offset, true
			}
		}
	}
	return btf.Member{}, 0, false
}

func memberNames(t btf.Type, depth int) []string {
	if depth > maxNesting {
		return nil
	}
	var names []string
	for _, m := range members(btf.UnderlyingType(t)) {
		if m.Name != "" {
			names = append(names, m.Name)
		} else {
			names = append(names, memberNames(m.Type, depth+1)...)
		}
	}
	return names
}
