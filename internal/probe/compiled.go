package probe

import (
	_ "embed"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"kedr/internal/probe/object"
)

// packed is kedr_bpfel.o less what only readers of a verifier's log need, and read
// program by program.
//
//go:embed kedr.programs
var packed []byte

// compiled is what the compiler has made of the programs.
type compiled struct {
	Maps      map[string]*ebpf.MapSpec
	Variables map[string]*ebpf.VariableSpec

	program func(name string) (*ebpf.ProgramSpec, error)
	placed  []func(p *ebpf.ProgramSpec)
}

// readCompiled reads the programs; with the lines of their source, and the types of their
// maps, for those who want to read what the verifier says.
func readCompiled() (*compiled, error) {
	if Trace == nil {
		o, err := object.Read(packed)
		if err != nil {
			return nil, fmt.Errorf("reading the programs: %w", err)
		}
		return &compiled{Maps: o.Maps, Variables: o.Variables, program: o.Program}, nil
	}
	spec, err := loadKedr()
	if err != nil {
		return nil, fmt.Errorf("reading the programs: %w", err)
	}
	return &compiled{Maps: spec.Maps, Variables: spec.Variables, program: func(name string) (*ebpf.ProgramSpec, error) {
		p := spec.Programs[name]
		if p == nil {
			return nil, fmt.Errorf("there is no program %s", name)
		}
		return p.Copy(), nil
	}}, nil
}

// Program returns one of the programs, for the caller to change.
func (c *compiled) Program(name string) (*ebpf.ProgramSpec, error) {
	p, err := c.program(name)
	if err != nil {
		return nil, fmt.Errorf("reading the programs: %w", err)
	}
	for _, place := range c.placed {
		place(p)
	}
	return p, nil
}

// place has something put into each program.
func (c *compiled) place(f func(p *ebpf.ProgramSpec)) { c.placed = append(c.placed, f) }

// percpuVariable is PERCPU_VARIABLE of bpf/context.h.
const percpuVariable = 0x6b65647270657263

// pseudoBTFID is BPF_PSEUDO_BTF_ID of include/uapi/linux/bpf.h.
const pseudoBTFID = asm.Register(3)

// placePercpu puts a per-CPU variable of the kernel, by its type, where the programs have
// percpuVariable; type 0: there is none, and they don't use it.
func placePercpu(c *compiled, id btf.TypeID) {
	c.place(func(p *ebpf.ProgramSpec) {
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			if !ins.OpCode.IsDWordLoad() || ins.Constant != percpuVariable {
				continue
			}
			ins.Constant = int64(id)
			if id != 0 {
				ins.Src = pseudoBTFID
			}
		}
	})
}

// singles are maps of one value, which programs have at hand without looking it up
// (VALUE_OF in bpf/kedr.h).
var singles = []string{"known", "freed"}

// placeValues puts the values of maps where programs have the maps.
func placeValues(c *compiled) {
	c.place(func(p *ebpf.ProgramSpec) {
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			if ins.IsLoadFromMap() && ins.Src == asm.PseudoMapFD && slices.Contains(singles, ins.Reference()) {
				ins.Src, ins.Constant = asm.PseudoMapValue, 0
			}
		}
	})
}

// placeFunctions puts the kernel's functions that programs call where they are called.
// The library does that too, but insists on one prototype, and these have had two. What
// the kernel does not have stays as it is, for programs that are not loaded then.
func placeFunctions(c *compiled, find func(name string) (btf.TypeID, error)) {
	c.place(func(p *ebpf.ProgramSpec) {
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			if !ins.IsKfuncCall() {
				continue
			}
			if id, err := find(ins.Reference()); err == nil {
				*ins = asm.Instruction{OpCode: ins.OpCode, Src: ins.Src, Constant: int64(id)}
			}
		}
	})
}
