// Package object keeps compiled programs in a file of which only those are read that are
// asked for. Of an ELF file the library decodes all that is in it, the lines of the source
// first: for the dozen programs of a session that took longer than to have the kernel
// verify them.
//
// The file is written when the programs are compiled (object/pack), from what the library
// made of the compiler's: there is nothing in it that the library would not give, less
// what only readers of a verifier's log need.
package object

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Object is compiled programs, their maps and variables.
type Object struct {
	Maps      map[string]*ebpf.MapSpec
	Variables map[string]*ebpf.VariableSpec

	license   string
	programs  map[string]program
	functions []function
	names     []string
	types     func() ([]*btf.Func, error)
}

type program struct {
	ebpf.ProgramSpec
	functions []int
}

// function is what programs are made of; many have some in common.
type function struct {
	name         string
	typ          int    // and one; 0: none
	references   []byte // pairs of index and name
	instructions []byte
}

// width is the size of an instruction as the file has it: as the library does, wide ones
// in one piece.
const width = 16

// ErrDamaged says that a file is not one of Pack's.
var ErrDamaged = errors.New("not a file of compiled programs")

// Pack makes the file out of the compiler's.
func Pack(elf io.ReaderAt) ([]byte, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(elf)
	if err != nil {
		return nil, err
	}
	w := &writer{names: make(map[string]int), functions: make(map[string]int), typed: make(map[string]*btf.Func)}
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		// The verifier asks for the types of functions where there are global ones, which the
		// programs of a trace, two a function that is traced, do without.
		if err := w.program(spec.Programs[name], !strings.HasPrefix(name, "trace_")); err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
	}
	var out buffer
	out.number(len(spec.Maps))
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		if m.InnerMap != nil || m.MapExtra != 0 || m.Pinning != 0 || m.NumaNode != 0 {
			return nil, fmt.Errorf("map %s has what this file has no place for", name)
		}
		out.text(name)
		for _, n := range []uint32{uint32(m.Type), m.KeySize, m.ValueSize, m.MaxEntries, m.Flags} {
			out.number(int(n))
		}
		var contents []byte
		for _, kv := range m.Contents {
			b, ok := kv.Value.([]byte)
			if !ok || len(m.Contents) > 1 {
				return nil, fmt.Errorf("map %s: contents are not the compiler's", name)
			}
			if len(bytes.Trim(b, "\x00")) > 0 { // as the kernel makes them
				contents = b
			}
		}
		out.text(string(contents))
	}
	out.number(len(spec.Variables))
	for _, name := range slices.Sorted(maps.Keys(spec.Variables)) {
		v := spec.Variables[name]
		out.text(name)
		out.text(v.SectionName)
		out.number(int(v.Offset))
		out.number(int(v.Size()))
	}
	types, err := w.types()
	if err != nil {
		return nil, err
	}
	out.text(string(types))
	out.text(w.license)
	out.number(len(w.names))
	for _, name := range slices.SortedFunc(maps.Keys(w.names), func(a, b string) int { return w.names[a] - w.names[b] }) {
		out.text(name)
	}
	out.number(len(w.functions))
	out.Write(w.code.Bytes())
	out.number(len(spec.Programs))
	out.Write(w.programs.Bytes())
	return out.Bytes(), nil
}

type buffer struct{ bytes.Buffer }

func (b *buffer) number(n int) { b.Write(binary.AppendUvarint(nil, uint64(n))) }

func (b *buffer) text(s string) {
	b.number(len(s))
	b.WriteString(s)
}

type writer struct {
	names     map[string]int
	functions map[string]int
	typed     map[string]*btf.Func
	order     []*btf.Func
	license   string

	code, programs buffer
}

func (w *writer) program(p *ebpf.ProgramSpec, typed bool) error {
	if w.license == "" {
		w.license = p.License
	}
	if p.License != w.license || p.Ifindex != 0 || p.KernelVersion != 0 || p.AttachTarget != nil {
		return errors.New("it has what this file has no place for")
	}
	w.programs.text(p.Name)
	for _, n := range []uint32{uint32(p.Type), uint32(p.AttachType), p.Flags} {
		w.programs.number(int(n))
	}
	w.programs.text(p.AttachTo)
	w.programs.text(p.SectionName)
	var functions []int
	for from := 0; from < len(p.Instructions); {
		to := from + 1
		for to < len(p.Instructions) && p.Instructions[to].Symbol() == "" {
			to++
		}
		n, err := w.function(p.Instructions[from:to], typed)
		if err != nil {
			return err
		}
		functions = append(functions, n)
		from = to
	}
	w.programs.number(len(functions))
	for _, n := range functions {
		w.programs.number(n)
	}
	return nil
}

// function writes a function down if that has not been done for another program. With and
// without its type it is another one.
func (w *writer) function(code asm.Instructions, typed bool) (int, error) {
	name := code[0].Symbol()
	if name == "" {
		return 0, errors.New("a function without a name")
	}
	typ, key := btf.FuncMetadata(&code[0]), name
	if !typed || typ == nil {
		typ, key = nil, name+" without a type"
	}
	if n, ok := w.functions[key]; ok {
		return n, nil
	}
	n := len(w.functions)
	w.functions[key] = n
	var references, instructions buffer
	for i := range code {
		ins := &code[i]
		if r := ins.Reference(); r != "" {
			if _, ok := w.names[r]; !ok {
				w.names[r] = len(w.names)
			}
			references.number(i)
			references.number(w.names[r])
		}
		if ins.OpCode > math.MaxUint16 || btf.CORERelocationMetadata(ins) != nil {
			return 0, fmt.Errorf("function %s, instruction %d: there is no place for it", name, i)
		}
		b := binary.LittleEndian.AppendUint16(nil, uint16(ins.OpCode))
		b = append(b, byte(ins.Dst), byte(ins.Src))
		b = binary.LittleEndian.AppendUint32(b, uint32(uint16(ins.Offset)))
		instructions.Write(binary.LittleEndian.AppendUint64(b, uint64(ins.Constant)))
	}
	w.code.text(name)
	if typ != nil && w.typed[name] == nil {
		w.typed[name] = typ
		w.order = append(w.order, typ)
	}
	if typ != nil {
		w.code.number(slices.Index(w.order, w.typed[name]) + 1)
	} else {
		w.code.number(0)
	}
	w.code.text(references.String())
	w.code.text(instructions.String())
	return n, nil
}

// types are those of functions, which the verifier goes by: of what they point to it only
// wants to know the size.
func (w *writer) types() ([]byte, error) {
	var b btf.Builder
	bare := make(map[btf.Type]btf.Type)
	for _, f := range w.order {
		f := btf.Copy(f).(*btf.Func)
		proto, ok := f.Type.(*btf.FuncProto)
		if !ok {
			return nil, fmt.Errorf("function %s has no prototype", f.Name)
		}
		proto.Return = strip(proto.Return, bare)
		for i := range proto.Params {
			proto.Params[i].Type = strip(proto.Params[i].Type, bare)
		}
		if _, err := b.Add(f); err != nil {
			return nil, err
		}
	}
	return b.Marshal(nil, nil)
}

// strip takes the members off structures.
func strip(t btf.Type, bare map[btf.Type]btf.Type) btf.Type {
	if b := bare[t]; b != nil {
		return b
	}
	switch t := t.(type) {
	case *btf.Struct:
		bare[t] = &btf.Struct{Name: t.Name, Size: t.Size}
		return bare[t]
	case *btf.Union:
		bare[t] = &btf.Union{Name: t.Name, Size: t.Size}
		return bare[t]
	case *btf.Pointer:
		t.Target = strip(t.Target, bare)
	case *btf.Const:
		t.Type = strip(t.Type, bare)
	case *btf.Volatile:
		t.Type = strip(t.Type, bare)
	case *btf.Typedef:
		t.Type = strip(t.Type, bare)
	}
	return t
}

// Read reads all but the programs.
func Read(file []byte) (*Object, error) {
	r := &reader{rest: file}
	o := &Object{Maps: make(map[string]*ebpf.MapSpec), Variables: make(map[string]*ebpf.VariableSpec), programs: make(map[string]program)}
	for range r.count() {
		m := &ebpf.MapSpec{Name: r.text()}
		m.Type = ebpf.MapType(r.number())
		for _, n := range []*uint32{&m.KeySize, &m.ValueSize, &m.MaxEntries, &m.Flags} {
			*n = uint32(r.number())
		}
		if b := r.bytes(); len(b) > 0 {
			m.Contents = []ebpf.MapKV{{Key: uint32(0), Value: bytes.Clone(b)}}
		}
		o.Maps[m.Name] = m
	}
	for range r.count() {
		v := &ebpf.VariableSpec{Name: r.text(), SectionName: r.text(), Offset: uint32(r.number())}
		size := r.number()
		if m := o.Maps[v.SectionName]; m == nil || uint64(v.Offset)+uint64(size) > uint64(m.ValueSize) {
			r.damaged = true
			break
		}
		v.Value = make([]byte, size)
		o.Variables[v.Name] = v
	}
	types := r.bytes()
	o.types = sync.OnceValues(func() ([]*btf.Func, error) { return readTypes(types) })
	o.license = r.text()
	o.names = make([]string, r.count())
	for i := range o.names {
		o.names[i] = r.text()
	}
	o.functions = make([]function, r.count())
	for i := range o.functions {
		f := function{name: r.text(), typ: r.number(), references: r.bytes(), instructions: r.bytes()}
		r.damaged = r.damaged || len(f.instructions) == 0 || len(f.instructions)%width != 0
		o.functions[i] = f
	}
	for range r.count() {
		var p program
		p.Name = r.text()
		p.Type, p.AttachType, p.Flags = ebpf.ProgramType(r.number()), ebpf.AttachType(r.number()), uint32(r.number())
		p.AttachTo, p.SectionName = r.text(), r.text()
		p.License, p.ByteOrder = o.license, binary.LittleEndian
		p.functions = make([]int, r.count())
		for i := range p.functions {
			p.functions[i] = r.number()
			r.damaged = r.damaged || p.functions[i] >= len(o.functions)
		}
		o.programs[p.Name] = p
	}
	if r.damaged {
		return nil, ErrDamaged
	}
	return o, nil
}

func readTypes(file []byte) ([]*btf.Func, error) {
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	// As writer.types has added them.
	var functions []*btf.Func
	for id := btf.TypeID(1); ; id++ {
		t, err := spec.TypeByID(id)
		f, ok := t.(*btf.Func)
		if err != nil || !ok {
			return functions, nil
		}
		functions = append(functions, f)
	}
}

// Names lists the programs.
func (o *Object) Names() []string { return slices.Sorted(maps.Keys(o.programs)) }

// Program reads one of the programs, for the caller to change.
func (o *Object) Program(name string) (*ebpf.ProgramSpec, error) {
	p, ok := o.programs[name]
	if !ok {
		return nil, fmt.Errorf("there is no program %s", name)
	}
	n := 0
	for _, f := range p.functions {
		n += len(o.functions[f].instructions) / width
	}
	spec := p.ProgramSpec
	spec.Instructions = make(asm.Instructions, 0, n)
	for _, i := range p.functions {
		f := &o.functions[i]
		start := len(spec.Instructions)
		for b := f.instructions; len(b) > 0; b = b[width:] {
			spec.Instructions = append(spec.Instructions, asm.Instruction{
				OpCode: asm.OpCode(binary.LittleEndian.Uint16(b)), Dst: asm.Register(b[2]), Src: asm.Register(b[3]),
				Offset: int16(binary.LittleEndian.Uint16(b[4:])), Constant: int64(binary.LittleEndian.Uint64(b[8:])),
			})
		}
		code := spec.Instructions[start:]
		code[0] = code[0].WithSymbol(f.name)
		if f.typ != 0 {
			types, err := o.types()
			if err != nil {
				return nil, err
			}
			if f.typ > len(types) {
				return nil, ErrDamaged
			}
			code[0] = btf.WithFuncMetadata(code[0], types[f.typ-1])
		}
		for r := (&reader{rest: f.references}); len(r.rest) > 0; {
			at, name := r.number(), r.number()
			if r.damaged || at >= len(code) || name >= len(o.names) {
				return nil, ErrDamaged
			}
			code[at] = code[at].WithReference(o.names[name])
		}
	}
	return &spec, nil
}

// reader reads zeros behind what is damaged.
type reader struct {
	rest    []byte
	damaged bool
}

func (r *reader) number() int {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > math.MaxInt32 {
		r.rest, r.damaged = nil, true
		return 0
	}
	r.rest = r.rest[size:]
	return int(n)
}

// count is a number of things that follow.
func (r *reader) count() int {
	n := r.number()
	if n > len(r.rest) {
		r.rest, r.damaged = nil, true
		return 0
	}
	return n
}

func (r *reader) bytes() []byte {
	n := r.count()
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) text() string { return string(r.bytes()) }
