package describe

import (
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"kedr/internal/trace"
)

// place is where a value stands: a parameter of a function, or a field of a structure.
type place struct {
	function, structure string // one of them
	name                string
}

// typeOf says how a value is read.
func (d *Describer) typeOf(t btf.Type, p place) trace.Type {
	size, err := btf.Sizeof(t)
	if err != nil {
		size = 0
	}
	of := trace.Type{Name: declaration(unqualified(t), ""), Size: size}
	switch u := btf.UnderlyingType(t).(type) {
	case *btf.Void:
		of.Name, of.Size = "", 0
	case *btf.Pointer:
		of.Class = trace.Pointer
		if p.structure == "" && isChar(u.Target) {
			of.Class = trace.String
		}
	case *btf.Enum:
		// What a module's .BTF.base has of the kernel's enumerations is their names.
		var whole *btf.Enum
		if len(u.Values) == 0 && d.kernel.TypeByName(u.Name, &whole) == nil {
			u = whole
		}
		of.Class, of.Signed, of.Names = trace.Enum, u.Signed, names(u)
		if negative(u) {
			of.Signed = true
		}
	case *btf.Int:
		d.integer(&of, u, t, p)
	case *btf.Struct:
		// kuid_t, pgprot_t, atomic_t are integers in a wrapping.
		if inner, ok := wrapped(u); ok {
			name := of.Name
			of = d.typeOf(inner, p)
			of.Name = name
			d.numbers(&of, t, p)
		} else {
			of.Class = trace.Struct
		}
	default:
		of.Class = trace.Struct // union, array, float
	}
	return of
}

// integer reads an integer, which may be a word of flags by its type's name or by where
// it stands.
func (d *Describer) integer(of *trace.Type, i *btf.Int, t btf.Type, p place) {
	switch {
	case i.Encoding == btf.Bool || i.Name == "_Bool":
		of.Class = trace.Bool
		return
	case i.Name == "char":
		of.Class, of.Signed = trace.Char, i.Encoding == btf.Signed
	case i.Size > 8:
		of.Class = trace.Struct
		return
	default:
		of.Class, of.Signed = trace.Int, i.Encoding == btf.Signed
	}
	d.numbers(of, t, p)
}

// numbers says how people write an integer: with names, or to which base.
func (d *Describer) numbers(of *trace.Type, t btf.Type, p place) {
	if of.Class != trace.Int && of.Class != trace.Flags {
		return
	}
	typedefs := typedefsOf(t)
	if names := d.flagNames(typedefs, p); len(names) > 0 {
		of.Class, of.Base, of.Names = trace.Flags, 16, within(names, of.Size)
		return
	}
	if b := d.tables.base(typedefs, p); b != 0 {
		of.Base = b
	}
}

// within cuts names off to what a word of that size can hold.
func within(names []trace.Name, size int) []trace.Name {
	if size <= 0 || size >= 8 {
		return names
	}
	mask := uint64(1)<<(8*size) - 1
	var list []trace.Name
	for _, n := range names {
		if n.Value == 0 || n.Value&mask != 0 {
			list = append(list, trace.Name{Value: n.Value & mask, Name: n.Name})
		}
	}
	return list
}

// names are the values of an enumeration, extended to 64 bits as its sign has it. Of
// several names of one value the first stands for it.
func names(e *btf.Enum) []trace.Name {
	list := make([]trace.Name, 0, len(e.Values))
	signed := e.Signed || negative(e)
	for _, v := range e.Values {
		value := v.Value
		if signed && e.Size == 4 {
			value = uint64(int32(value))
		}
		list = append(list, trace.Name{Value: value, Name: v.Name})
	}
	return list
}

// negative says whether an enumeration has values below zero that it does not tell of:
// before 6.2 the kernel's BTF has no sign of enumerations.
func negative(e *btf.Enum) bool {
	return !e.Signed && e.Size == 4 && slices.ContainsFunc(e.Values, func(v btf.EnumValue) bool {
		return v.Value >= 0xffff0000 && v.Value <= 0xffffffff
	})
}

// wrapped returns the integer that is all there is in a structure.
func wrapped(s *btf.Struct) (btf.Type, bool) {
	if len(s.Members) != 1 || s.Members[0].BitfieldSize != 0 {
		return nil, false
	}
	switch t := btf.UnderlyingType(s.Members[0].Type).(type) {
	case *btf.Int:
		return s.Members[0].Type, t.Size == s.Size && t.Size <= 8
	case *btf.Struct:
		if t.Size == s.Size {
			return wrapped(t)
		}
	}
	return nil, false
}

func isChar(t btf.Type) bool {
	i, ok := btf.As[*btf.Int](t)
	if !ok || i.Name != "char" {
		return false
	}
	return !user(t)
}

// user says that a pointer's target is in the memory of a process. Only compilers that
// keep the kernel's __user tell (clang, GCC from 16 on).
func user(t btf.Type) bool {
	for {
		switch q := t.(type) {
		case *btf.TypeTag:
			if q.Value == "user" {
				return true
			}
			t = q.Type
		case *btf.Const:
			t = q.Type
		case *btf.Volatile:
			t = q.Type
		case *btf.Restrict:
			t = q.Type
		default:
			return false
		}
	}
}

// typedefsOf are the names that a type goes by, the outermost first.
func typedefsOf(t btf.Type) []string {
	var list []string
	for range maxNesting {
		switch q := t.(type) {
		case *btf.Typedef:
			list = append(list, q.Name)
			t = q.Type
		case *btf.Const:
			t = q.Type
		case *btf.Volatile:
			t = q.Type
		case *btf.TypeTag:
			t = q.Type
		default:
			return list
		}
	}
	return list
}

func unqualified(t btf.Type) btf.Type {
	for range maxNesting {
		switch q := t.(type) {
		case *btf.Const:
			t = q.Type
		case *btf.Volatile:
			t = q.Type
		case *btf.Restrict:
			t = q.Type
		default:
			return t
		}
	}
	return t
}

// maxNesting bounds how far types are followed into each other.
const maxNesting = 32

// short are the integers of C as people write them.
var short = map[string]string{
	"long unsigned int": "unsigned long", "long int": "long",
	"long long unsigned int": "unsigned long long", "long long int": "long long",
	"short unsigned int": "unsigned short", "short int": "short", "_Bool": "bool",
	"__int128 unsigned": "unsigned __int128",
}

// declaration declares something as C does: "struct file *", or, with a name,
// "int (*fn)(void *)".
func declaration(t btf.Type, name string) string { return declare(t, name, 0) }

func declare(t btf.Type, inner string, depth int) string {
	base := func(name string) string {
		if inner == "" {
			return name
		}
		if strings.HasPrefix(inner, "[") {
			return name + inner
		}
		return name + " " + inner
	}
	// A qualifier of a pointer stands behind its asterisk, any other one in front.
	qualified := func(word string, of btf.Type) string {
		switch q := of.(type) {
		case *btf.Pointer:
			return declare(of, strings.TrimSuffix(word+" "+inner, " "), depth+1)
		case *btf.FuncProto, *btf.Array:
			return declare(of, inner, depth+1)
		case *btf.Const:
			if word == "const" {
				return declare(q, inner, depth+1)
			}
		}
		return word + " " + declare(of, inner, depth+1)
	}
	if depth > maxNesting {
		return base("...")
	}
	switch t := t.(type) {
	case *btf.Void, nil:
		return base("void")
	case *btf.Int:
		if s, ok := short[t.Name]; ok {
			return base(s)
		}
		return base(t.Name)
	case *btf.Float:
		return base(t.Name)
	case *btf.Typedef:
		return base(t.Name)
	case *btf.Struct:
		return base(strings.TrimSuffix("struct "+t.Name, " "))
	case *btf.Union:
		return base(strings.TrimSuffix("union "+t.Name, " "))
	case *btf.Fwd:
		return base(strings.TrimSuffix(t.Kind.String()+" "+t.Name, " "))
	case *btf.Enum:
		return base(strings.TrimSuffix("enum "+t.Name, " "))
	case *btf.Const:
		return qualified("const", t.Type)
	case *btf.Volatile:
		return qualified("volatile", t.Type)
	case *btf.Restrict:
		return declare(t.Type, inner, depth+1)
	case *btf.TypeTag:
		return declare(t.Type, inner, depth+1)
	case *btf.Pointer:
		inner := "*" + inner
		switch unqualified(t.Target).(type) {
		case *btf.FuncProto, *btf.Array:
			inner = "(" + inner + ")"
		}
		return declare(t.Target, inner, depth+1)
	case *btf.Array:
		return declare(t.Type, inner+"["+strconv.Itoa(int(t.Nelems))+"]", depth+1)
	case *btf.FuncProto:
		var params []string
		for i, p := range t.Params {
			if _, void := p.Type.(*btf.Void); void && i == len(t.Params)-1 {
				params = append(params, "...")
				break
			}
			params = append(params, declare(p.Type, "", depth+1))
		}
		if len(params) == 0 {
			params = []string{"void"}
		}
		return declare(t.Return, inner+"("+strings.Join(params, ", ")+")", depth+1)
	case *btf.Func:
		return declare(t.Type, t.Name, depth+1)
	}
	return base("?")
}
