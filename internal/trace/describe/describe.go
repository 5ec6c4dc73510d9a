// Package describe says what a function's arguments and result are: how they are
// called, where they are found in a call, and how they are read. It knows that from
// BTF; names of flag words, which BTF does not have, are from the kernel's tracing
// events and from a table of data (data/flags.toml).
package describe

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf/btf"

	"kedr/internal/trace"
)

// Describer describes the functions of one kernel.
type Describer struct {
	kernel *btf.Spec
	tables *tables

	// What names of flag words were found for, once for each word of one kind.
	words map[string][]trace.Name
}

// New makes a Describer of the kernel with these types. The release, as uname -r has it,
// tells which tables of flags hold; tracing is what tracefs is mounted on, or nil: then
// the names of gfp_t are not known before Linux 6.10.
func New(kernel *btf.Spec, release string, tracing fs.FS) (*Describer, error) {
	t, err := readTables(flagsFile)
	if err != nil {
		return nil, fmt.Errorf("data/flags.toml: %w", err)
	}
	d := &Describer{kernel: kernel, tables: t, words: make(map[string][]trace.Name)}
	t.choose(release)
	d.words["gfp_t"] = d.gfp(tracing)
	return d, nil
}

// Function describes a function of the kernel, or of the module that types are from
// where they are not nil. One that has no prototype there, or several that differ, is
// not Known, and that is no error: it can be traced all the same.
func (d *Describer) Function(types *btf.Spec, name string, x *Expansions) (trace.Function, error) {
	if types == nil {
		types = d.kernel
	}
	f := trace.Function{Name: name}
	proto := prototype(types, name)
	if proto == nil {
		return f, x.unknown(name)
	}
	d.describe(&f, proto)
	err := d.expand(&f, proto, x)
	return f, err
}

// Callback describes a function of a target that the kernel calls. Types are the
// target's own (ModuleTypes), or nil where it has none.
func (d *Describer) Callback(types *btf.Spec, name string, target int, x *Expansions) (trace.Function, error) {
	f := trace.Function{Name: name}
	var err error
	if types != nil {
		f, err = d.Function(types, name, x)
	} else {
		err = x.unknown(name)
	}
	f.Callback, f.Target = true, target
	return f, err
}

// ErrNoTypes says that a module's file has no BTF. One that is built without its
// kernel's vmlinux at hand has none.
var ErrNoTypes = errors.New("has no types of its own (.BTF)")

// ModuleTypes reads the types of a module from its file, which is not compressed. They
// continue those of the kernel that it was built for; when it was built for another one,
// the types mean nothing, and most often their names are not found.
func (d *Describer) ModuleTypes(image []byte) (*btf.Spec, error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, fmt.Errorf("reading a module's types: %w", err)
	}
	section := func(name string) ([]byte, error) {
		s := file.Section(name)
		if s == nil {
			return nil, nil
		}
		b, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("reading a module's types: section %s: %w", name, err)
		}
		return b, nil
	}
	own, err := section(".BTF")
	if err != nil {
		return nil, err
	}
	if own == nil {
		return nil, ErrNoTypes
	}
	// From Linux 6.11 on, what such a module needs of the kernel's types may come with it,
	// without what is in the structures (Documentation/bpf/btf.rst, .BTF.base).
	base := d.kernel
	distilled, err := section(".BTF.base")
	if err != nil {
		return nil, err
	}
	if distilled != nil {
		if base, err = btf.LoadSpecFromReader(bytes.NewReader(distilled)); err != nil {
			return nil, fmt.Errorf("reading a module's types: section .BTF.base: %w", err)
		}
	}
	types, err := btf.LoadSplitSpecFromReader(bytes.NewReader(own), base)
	if err != nil {
		return nil, fmt.Errorf("reading a module's types: section .BTF: %w", err)
	}
	return types, nil
}

// prototype finds a function; nil: there is none, or there are several and nobody knows
// which of them is meant.
func prototype(types *btf.Spec, name string) *btf.FuncProto {
	all, err := types.AnyTypesByName(name)
	if err != nil {
		return nil
	}
	var found *btf.FuncProto
	for _, t := range all {
		f, ok := t.(*btf.Func)
		if !ok {
			continue
		}
		p, ok := f.Type.(*btf.FuncProto)
		if !ok {
			continue
		}
		if found != nil && declaration(found, name) != declaration(p, name) {
			return nil
		}
		found = p
	}
	return found
}

func (d *Describer) describe(f *trace.Function, proto *btf.FuncProto) {
	f.Known = true
	slot := 0
	// What does not fit in two registers is returned in memory, whose address is passed
	// as if it were the first argument (System V ABI, AMD64, 3.2.3).
	if inMemory(proto.Return) {
		slot++
	}
	for i, p := range proto.Params {
		if _, void := p.Type.(*btf.Void); void && i == len(proto.Params)-1 {
			f.Variadic = true
			break
		}
		param := trace.Param{Name: p.Name, Type: d.typeOf(p.Type, place{function: f.Name, name: p.Name}), Slot: trace.MaxArgs}
		if n := slots(p.Type); n > 0 && slot+n <= trace.MaxArgs {
			param.Slot = slot
			slot += n
		}
		f.Params = append(f.Params, param)
	}
	f.Result = d.typeOf(proto.Return, place{function: f.Name, name: resultName})
}

// resultName is what the result is called where a parameter's name would stand.
const resultName = "ret"

// slots says how many registers for integers a value takes, all or none of which it is
// passed in; 0: it is never passed there.
func slots(t btf.Type) int {
	size, err := btf.Sizeof(t)
	if err != nil || size == 0 || inMemory(t) {
		return 0
	}
	if _, float := btf.As[*btf.Float](t); float {
		return 0
	}
	return (size + 7) / 8
}

// inMemory says whether a value has to be passed in memory: a structure that is large,
// or that is packed so that something in it is not aligned.
func inMemory(t btf.Type) bool {
	var members []btf.Member
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	default:
		return false
	}
	if size, err := btf.Sizeof(t); err != nil || size > 16 {
		return true
	}
	for _, m := range members {
		if inMemory(m.Type) {
			return true
		}
		if n := alignment(m.Type); m.BitfieldSize == 0 && n > 1 && m.Offset.Bytes()%n != 0 {
			return true
		}
	}
	return false
}

func alignment(t btf.Type) uint32 {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Array:
		return alignment(t.Type)
	case *btf.Struct, *btf.Union:
		return 1 // its members have been looked at
	default:
		n, err := btf.Sizeof(t)
		if err != nil {
			return 1
		}
		return uint32(n)
	}
}

// textOf is the capture of the text that a pointer points to.
func textOf(param int, t trace.Type) trace.Capture {
	t.Size = trace.MaxCapture
	return trace.Capture{Param: param, Type: t}
}

// text says whether what a pointer to characters points to is a text when the function
// is called. A pointer to what is not const is mostly to where a text is put: of 186 such
// parameters of exported functions in 6.1, and 184 in 7.3, some 35 are read, and these
// are told by their names.
func (d *Describer) text(t btf.Type, p place) bool {
	ptr, ok := btf.As[*btf.Pointer](t)
	if !ok {
		return false
	}
	if constant(ptr.Target) {
		return true
	}
	return d.tables.isText(t, p)
}

func constant(t btf.Type) bool {
	for {
		switch q := t.(type) {
		case *btf.Const:
			return true
		case *btf.Volatile:
			t = q.Type
		case *btf.Restrict:
			t = q.Type
		case *btf.TypeTag:
			t = q.Type
		case *btf.Typedef:
			t = q.Type
		default:
			return false
		}
	}
}
