package describe

import (
	"debug/dwarf"
	"fmt"

	"github.com/cilium/ebpf/btf"

	"kedr/internal/trace"
)

// Prototypes finds the functions of these names in a module's DWARF: a module that was built
// without its kernel's vmlinux at hand has no BTF, but most often has debug information.
// Functions that two units define differently are left out.
func (d *Describer) Prototypes(data *dwarf.Data, wanted map[string]bool) (found map[string]*btf.FuncProto, err error) {
	// It is from a file, and debug/dwarf has met files that it did not expect before.
	defer func() {
		if p := recover(); p != nil {
			found, err = nil, fmt.Errorf("reading a module's types: %v", p)
		}
	}()
	found = make(map[string]*btf.FuncProto)
	c := converter{data: data, kernel: d.kernel}
	r := data.Reader()
	for {
		e, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("reading a module's types: %w", err)
		}
		if e == nil {
			return found, nil
		}
		if e.Tag == dwarf.TagCompileUnit || e.Tag == 0 {
			continue
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		declaration, _ := e.Val(dwarf.AttrDeclaration).(bool)
		if e.Tag != dwarf.TagSubprogram || !wanted[name] || declaration {
			if e.Children {
				r.SkipChildren()
			}
			continue
		}
		proto, err := c.function(r, e)
		if err != nil {
			return nil, fmt.Errorf("reading a module's types: %w", err)
		}
		if _, again := found[name]; again {
			proto = nil // a static function of two files: nobody knows which is meant
		}
		found[name] = proto
	}
}

// Described describes a function of a target by a prototype that Prototypes has found.
func (d *Describer) Described(proto *btf.FuncProto, name string, target int, x *Expansions) (trace.Function, error) {
	f := trace.Function{Name: name}
	d.describe(&f, proto)
	err := d.expand(&f, proto, x)
	f.Callback, f.Target = true, target
	return f, err
}

// converter makes BTF of DWARF, as far as parameters need it. Structures are the
// kernel's of that name, for what is in them.
type converter struct {
	data   *dwarf.Data
	kernel *btf.Spec
}

// function reads the entries below a function, up to its end.
func (c *converter) function(r *dwarf.Reader, e *dwarf.Entry) (*btf.FuncProto, error) {
	proto := &btf.FuncProto{Return: c.entry(e)}
	if !e.Children {
		return proto, nil
	}
	for {
		child, err := r.Next()
		if err != nil {
			return nil, err
		}
		if child == nil || child.Tag == 0 {
			return proto, nil
		}
		switch child.Tag {
		case dwarf.TagFormalParameter:
			name, _ := child.Val(dwarf.AttrName).(string)
			proto.Params = append(proto.Params, btf.FuncParam{Name: name, Type: c.entry(child)})
		case dwarf.TagUnspecifiedParameters:
			proto.Params = append(proto.Params, btf.FuncParam{Type: &btf.Void{}})
		}
		if child.Children {
			r.SkipChildren()
		}
	}
}

// entry is the type that an entry names; void if none.
func (c *converter) entry(e *dwarf.Entry) btf.Type {
	off, ok := e.Val(dwarf.AttrType).(dwarf.Offset)
	if !ok {
		return &btf.Void{}
	}
	t, err := c.data.Type(off)
	if err != nil {
		return &btf.Struct{Name: "?"}
	}
	return c.convert(t, 0)
}

// maxDepth is how long a chain of pointers, qualifiers and names may be.
const maxDepth = 32

func (c *converter) convert(t dwarf.Type, depth int) btf.Type {
	if depth > maxDepth {
		return &btf.Void{}
	}
	integer := func(b *dwarf.BasicType, encoding btf.IntEncoding) btf.Type {
		return &btf.Int{Name: b.Name, Size: uint32(b.ByteSize), Encoding: encoding}
	}
	switch t := t.(type) {
	case *dwarf.IntType:
		return integer(&t.BasicType, btf.Signed)
	case *dwarf.UintType:
		return integer(&t.BasicType, btf.Unsigned)
	case *dwarf.CharType:
		return integer(&t.BasicType, btf.Signed)
	case *dwarf.UcharType:
		return integer(&t.BasicType, btf.Unsigned)
	case *dwarf.BoolType:
		return integer(&t.BasicType, btf.Bool)
	case *dwarf.VoidType:
		return &btf.Void{}
	case *dwarf.PtrType:
		return &btf.Pointer{Target: c.convert(t.Type, depth+1)}
	case *dwarf.TypedefType:
		return &btf.Typedef{Name: t.Name, Type: c.convert(t.Type, depth+1)}
	case *dwarf.QualType:
		of := c.convert(t.Type, depth+1)
		switch t.Qual {
		case "const":
			return &btf.Const{Type: of}
		case "volatile":
			return &btf.Volatile{Type: of}
		}
		return of
	case *dwarf.EnumType:
		e := &btf.Enum{Name: t.EnumName, Size: uint32(max(t.ByteSize, 4))}
		for _, v := range t.Val {
			e.Signed = e.Signed || v.Val < 0
			e.Values = append(e.Values, btf.EnumValue{Name: v.Name, Value: uint64(v.Val)})
		}
		return e
	case *dwarf.StructType:
		if t.Kind == "union" {
			return &btf.Union{Name: t.StructName, Size: uint32(max(t.ByteSize, 0))}
		}
		var s *btf.Struct
		if t.StructName != "" && c.kernel.TypeByName(t.StructName, &s) == nil && (t.Incomplete || int64(s.Size) == t.ByteSize) {
			return s
		}
		return &btf.Struct{Name: t.StructName, Size: uint32(max(t.ByteSize, 0))}
	case *dwarf.FuncType:
		proto := &btf.FuncProto{Return: &btf.Void{}}
		if t.ReturnType != nil {
			proto.Return = c.convert(t.ReturnType, depth+1)
		}
		for _, p := range t.ParamType {
			if _, dots := p.(*dwarf.DotDotDotType); dots {
				proto.Params = append(proto.Params, btf.FuncParam{Type: &btf.Void{}})
				continue
			}
			proto.Params = append(proto.Params, btf.FuncParam{Type: c.convert(p, depth+1)})
		}
		return proto
	}
	return &btf.Struct{Name: t.Common().Name, Size: uint32(max(t.Size(), 0))} // floats, arrays
}
