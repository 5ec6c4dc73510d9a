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
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
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
	symbols func() (*Symbols, error)
}

// Running describes the running kernel. Its BTF is read when first asked for.
func Running() (*Kernel, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	cache := btf.NewCache()
	return &Kernel{
		Types:   cache,
		Release: unix.ByteSliceToString(u.Release[:]),
		Machine: unix.ByteSliceToString(u.Machine[:]),
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

// Params returns a function's parameters. Errors: ErrNoFunction, ErrVariadic,
// ErrNoBTF.
func (k *Kernel) Params(function string) ([]Param, error) {
	fn, err := find[*btf.Func](k, function)
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
		params = append(params, param)
	}
	return params, nil
}

// Tracepoint returns the parameters of a tracepoint's probes, without the
// leading private pointer (include/linux/tracepoint.h, __traceiter_*). Requires
// Linux 5.10.
func (k *Kernel) Tracepoint(name string) ([]Param, error) {
	params, err := k.Params("__traceiter_" + name)
	if err != nil {
		return nil, err
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
	if err != nil {
		return 0, fmt.Errorf("struct %w", err)
	}
	return s.Size, nil
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
