// Package kernel knows the kernel that runs here: its functions and structures
// by its own BTF, its modules, and what it lets us do.
package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"kedr/internal/prototype"
)

// Errors that callers decide on.
var (
	ErrNoBTF      = errors.New("this kernel has no BTF (/sys/kernel/btf/vmlinux): a kernel built with CONFIG_DEBUG_INFO_BTF is needed, or run in a machine with --vm=always")
	ErrNoFunction = errors.New("no such function in this kernel")
	ErrVariadic   = errors.New("takes a variable number of arguments")
)

// Kernel is the running kernel.
type Kernel struct {
	Release string // as uname -r has it
	Machine string // as uname -m has it

	// Types holds what of the kernel's BTF has been read, for all who need it.
	Types *btf.Cache

	spec    func() (*btf.Spec, error)
	own     bool // the types are the running kernel's own, which programs may refer to
	symbols func() (*Symbols, error)
	layouts []Layouts
}

// NoBTF in place of the name of a file has the kernel's own types left alone.
const NoBTF = "none"

// Layouts knows structures of the kernel: a module's debug information.
type Layouts interface {
	Field(structure, path string) (uint32, error)
	StructSize(structure string) (uint32, error)
}

// Running describes the running kernel. Its BTF is read when first asked for.
func Running() (*Kernel, error) { return RunningWith("") }

// RunningWith is Running with types from a file, BTF by itself or in an ELF file, where
// the kernel has none of its own; NoBTF: without types, empty: with the kernel's.
func RunningWith(file string) (*Kernel, error) {
	k, err := running()
	if err != nil || file == "" {
		return k, err
	}
	k.own = false
	if file == NoBTF {
		k.spec = func() (*btf.Spec, error) { return nil, ErrNoBTF }
		return k, nil
	}
	spec, err := btf.LoadSpec(file)
	if err != nil {
		return nil, fmt.Errorf("reading types from %s: %w", file, err)
	}
	k.spec = func() (*btf.Spec, error) { return spec, nil }
	return k, nil
}

// FromBTF describes a kernel by a file of its types, to be asked about functions and
// structures only.
func FromBTF(file string) (*Kernel, error) {
	spec, err := btf.LoadSpec(file)
	if err != nil {
		return nil, fmt.Errorf("reading types from %s: %w", file, err)
	}
	return &Kernel{spec: func() (*btf.Spec, error) { return spec, nil }}, nil
}

// Learn adds layouts for a kernel that does not tell its own.
func (k *Kernel) Learn(l Layouts) { k.layouts = append(k.layouts, l) }

// OwnTypes says whether the kernel has types that programs may refer to, as those in
// trampolines and iterators do.
func (k *Kernel) OwnTypes() bool {
	if !k.own {
		return false
	}
	_, err := k.spec()
	return err == nil
}

// Word is the size of a long and of a pointer in bytes.
func (k *Kernel) Word() int {
	if k.Machine == "x86_64" {
		return 8
	}
	return 4
}

func running() (*Kernel, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	cache := btf.NewCache()
	return &Kernel{
		Types:   cache,
		Release: unix.ByteSliceToString(u.Release[:]),
		Machine: unix.ByteSliceToString(u.Machine[:]),
		own:     true,
		symbols: sync.OnceValues(readKallsyms),
		spec: sync.OnceValues(func() (*btf.Spec, error) {
			s, err := cache.Kernel()
			if err != nil {
				if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, fs.ErrNotExist) {
					return nil, ErrNoBTF
				}
				return nil, fmt.Errorf("%w (%w)", ErrNoBTF, err)
			}
			return s, nil
		}),
	}, nil
}

// AtLeast says whether the kernel is this version or a later one.
func (k *Kernel) AtLeast(major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(k.Release, "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

// HasHelper says whether programs may call bpf_<name>: distributions give old
// kernels new functions, so that the version does not tell.
func (k *Kernel) HasHelper(name string) bool {
	_, err := k.Enum("bpf_func_id", "BPF_FUNC_"+name)
	if errors.Is(err, ErrNoBTF) && name == "loop" {
		// Its callbacks are compiled, which 32-bit kernels don't do with calls
		// (arch/x86/net/bpf_jit_comp32.c).
		return k.Word() == 8 && features.HaveProgramHelper(ebpf.Kprobe, asm.FnLoop) == nil
	}
	return err == nil
}

// PerCPU returns the type of a per-CPU variable, as programs refer to it.
func (k *Kernel) PerCPU(name string) (btf.TypeID, error) {
	v, err := find[*btf.Var](k, name)
	if err != nil {
		return 0, err
	}
	spec, err := k.spec()
	if err != nil {
		return 0, err
	}
	return spec.TypeID(v)
}

// Struct returns the type of a structure, as programs refer to it.
func (k *Kernel) Struct(name string) (btf.TypeID, error) {
	s, err := find[*btf.Struct](k, name)
	if err != nil {
		return 0, err
	}
	spec, err := k.spec()
	if err != nil {
		return 0, err
	}
	return spec.TypeID(s)
}

// Function returns the type of a function, as programs that call it refer to it.
func (k *Kernel) Function(name string) (btf.TypeID, error) {
	f, err := find[*btf.Func](k, name)
	if err != nil {
		return 0, err
	}
	spec, err := k.spec()
	if err != nil {
		return 0, err
	}
	return spec.TypeID(f)
}

// find looks a type up by its name.
func find[T btf.Type](k *Kernel, name string) (T, error) {
	var t T
	spec, err := k.spec()
	if err != nil {
		return t, err
	}
	if err := spec.TypeByName(name, &t); err != nil {
		return t, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

// Param is a parameter of a kernel function.
type Param struct {
	Name    string
	Pointee string // name of the structure it points to, if it does
	Wide    bool   // takes more than one register
	Size    int    // in bytes; 0: unknown
	Class   Class
	Word    bool // of the machine's own size

	Structure bool // passed by value
}

// Class is what a parameter is, as far as it matters here.
type Class string

// The classes there are.
const (
	Pointer Class = "pointer"
	Integer Class = "integer"
	Other   Class = "other"
)

func classOf(t btf.Type) Class {
	switch btf.UnderlyingType(t).(type) {
	case *btf.Pointer:
		return Pointer
	case *btf.Int, *btf.Enum:
		return Integer
	}
	return Other
}

// Params returns a function's parameters. Errors: ErrNoFunction, ErrVariadic, and
// prototype.UnknownError where there is no BTF.
func (k *Kernel) Params(function string) ([]Param, error) {
	fn, err := find[*btf.Func](k, function)
	if errors.Is(err, ErrNoBTF) {
		return k.prototype(function)
	}
	if errors.Is(err, btf.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", function, ErrNoFunction)
	}
	if err != nil {
		return nil, err
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return nil, fmt.Errorf("%s: BTF gives no prototype", function)
	}
	params := make([]Param, 0, len(proto.Params))
	for i, p := range proto.Params {
		if _, void := p.Type.(*btf.Void); void && i == len(proto.Params)-1 {
			return params, fmt.Errorf("%s: %w", function, ErrVariadic)
		}
		param := Param{Name: p.Name, Class: classOf(p.Type)}
		switch btf.UnderlyingType(p.Type).(type) {
		case *btf.Struct, *btf.Union:
			param.Structure = true
		}
		if ptr, ok := btf.UnderlyingType(p.Type).(*btf.Pointer); ok {
			if s, ok := btf.UnderlyingType(ptr.Target).(*btf.Struct); ok {
				param.Pointee = s.Name
			}
		}
		if n, err := btf.Sizeof(p.Type); err == nil {
			param.Wide, param.Size = n > 8, n
		}
		if i, ok := btf.UnderlyingType(p.Type).(*btf.Int); ok {
			param.Word = strings.HasPrefix(i.Name, "long") && !strings.HasPrefix(i.Name, "long long")
		}
		params = append(params, param)
	}
	return params, nil
}

// prototype is Params without BTF, for functions that are there.
func (k *Kernel) prototype(function string) ([]Param, error) {
	symbols, err := k.symbols()
	if err != nil {
		return nil, err
	}
	if _, ok := symbols.Find(function); !ok {
		return nil, fmt.Errorf("%s: %w", function, ErrNoFunction)
	}
	known, err := prototype.Of(function, k.Release)
	if err != nil {
		return nil, err
	}
	var params []Param
	for _, p := range known {
		if p.Name == "..." {
			return params, fmt.Errorf("%s: %w", function, ErrVariadic)
		}
		param := Param{Name: p.Name, Pointee: p.Pointee, Size: p.Size, Word: p.Size == 0, Structure: p.Kind == prototype.Structure}
		if p.Size == 0 {
			param.Size = k.Word()
		}
		param.Wide = param.Size > 8
		param.Class = map[prototype.Kind]Class{prototype.Pointer: Pointer, prototype.Integer: Integer}[p.Kind]
		if param.Class == "" {
			param.Class = Other
		}
		params = append(params, param)
	}
	return params, nil
}

// Prototype is a function's parameters as the table of prototypes keeps them.
func (k *Kernel) Prototype(function string) ([]prototype.Param, error) {
	params, err := k.Params(function)
	variadic := errors.Is(err, ErrVariadic)
	if err != nil && !variadic {
		return nil, err
	}
	var out []prototype.Param
	for _, p := range params {
		q := prototype.Param{Name: p.Name, Kind: prototype.Other, Size: p.Size, Pointee: p.Pointee}
		switch {
		case p.Structure:
			q.Kind = prototype.Structure
		case p.Class == Pointer:
			q.Kind, q.Size = prototype.Pointer, 0
		case p.Class == Integer:
			q.Kind = prototype.Integer
			if p.Word {
				q.Size = 0
			}
		}
		out = append(out, q)
	}
	if variadic {
		out = append(out, prototype.Param{Name: "...", Kind: prototype.Other})
	}
	return out, nil
}

// Tracepoint returns the parameters of a tracepoint's probes, without the
// leading private pointer (include/linux/tracepoint.h, __traceiter_*). Requires
// Linux 5.10.
func (k *Kernel) Tracepoint(name string) ([]Param, error) {
	params, err := k.Params("__traceiter_" + name)
	if err != nil {
		return nil, err
	}
	if _, err := k.spec(); err != nil {
		if err := holdAgainstFormat(name, params); err != nil {
			return nil, err
		}
	}
	if len(params) == 0 {
		return nil, fmt.Errorf("tracepoint %s: %w", name, ErrNoFunction)
	}
	return params[1:], nil
}

// ErrNoField says that a structure has no such member.
var ErrNoField = errors.New("no such member")

// Field returns the offset, in bytes, of a member of a structure; a path of
// several members goes through nested structures, "[n]" through an array.
func (k *Kernel) Field(structure, path string) (uint32, error) {
	s, err := find[*btf.Struct](k, structure)
	if errors.Is(err, ErrNoBTF) {
		return learnt(k, structure, func(l Layouts) (uint32, error) { return l.Field(structure, path) })
	}
	if err != nil {
		return 0, fmt.Errorf("struct %w", err)
	}
	var offset uint32
	var typ btf.Type = s
	for _, part := range strings.Split(path, ".") {
		name, index, indexed := strings.Cut(part, "[")
		at, t, ok := member(typ, name)
		if !ok {
			return 0, fmt.Errorf("struct %s, %s: %w", structure, path, ErrNoField)
		}
		offset, typ = offset+at, btf.UnderlyingType(t)
		if indexed {
			var n uint32
			if _, err := fmt.Sscanf(index, "%d]", &n); err != nil {
				return 0, fmt.Errorf("path %q: %w", path, err)
			}
			arr, ok := typ.(*btf.Array)
			if !ok || n >= arr.Nelems {
				return 0, fmt.Errorf("struct %s, %s: %w", structure, path, ErrNoField)
			}
			size, err := btf.Sizeof(arr.Type)
			if err != nil {
				return 0, err
			}
			offset, typ = offset+n*uint32(size), btf.UnderlyingType(arr.Type)
		}
	}
	return offset, nil
}

// member finds a member by name, also in anonymous members.
func member(t btf.Type, name string) (uint32, btf.Type, bool) {
	var members []btf.Member
	switch t := t.(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), m.Type, true
		}
		if m.Name == "" {
			if at, t, ok := member(btf.UnderlyingType(m.Type), name); ok {
				return m.Offset.Bytes() + at, t, true
			}
		}
	}
	return 0, nil, false
}

// StructSize returns the size of a structure in bytes.
func (k *Kernel) StructSize(structure string) (uint32, error) {
	s, err := find[*btf.Struct](k, structure)
	if errors.Is(err, ErrNoBTF) {
		return learnt(k, structure, func(l Layouts) (uint32, error) { return l.StructSize(structure) })
	}
	if err != nil {
		return 0, fmt.Errorf("struct %w", err)
	}
	return s.Size, nil
}

// ErrNoLayout says that nobody knows a structure.
var ErrNoLayout = errors.New("its layout is not known: the kernel has no BTF, nor has the module debug information on it (give a file with --btf)")

// learnt asks those who know layouts, in turn.
func learnt(k *Kernel, structure string, ask func(Layouts) (uint32, error)) (uint32, error) {
	for _, l := range k.layouts {
		if n, err := ask(l); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("struct %s: %w", structure, ErrNoLayout)
}

// Enum returns the value of an enumerator of a named enumeration.
func (k *Kernel) Enum(enum, name string) (uint64, error) {
	e, err := find[*btf.Enum](k, enum)
	if err != nil {
		return 0, fmt.Errorf("enum %w", err)
	}
	for _, v := range e.Values {
		if v.Name == name {
			return v.Value, nil
		}
	}
	return 0, fmt.Errorf("enum %s, %s: %w", enum, name, ErrNoField)
}

// Spec is the kernel's BTF.
func (k *Kernel) Spec() (*btf.Spec, error) { return k.spec() }
