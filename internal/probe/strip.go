package probe

import (
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// strip takes off what only readers of a verifier log need: with each program the
// kernel would be given the lines of its source, and their types; with each map, its. Functions keep
// theirs where the verifier asks for them, which it does for global ones; the programs of
// a trace, of which there are two a function, have none.
func strip(spec *ebpf.CollectionSpec) {
	for _, m := range spec.Maps {
		m.Key, m.Value = nil, nil
	}
	for name, p := range spec.Programs {
		functions := !strings.HasPrefix(name, "trace_")
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			bare := asm.Instruction{OpCode: ins.OpCode, Dst: ins.Dst, Src: ins.Src, Offset: ins.Offset, Constant: ins.Constant}
			if s := ins.Symbol(); s != "" {
				bare = bare.WithSymbol(s)
			}
			if r := ins.Reference(); r != "" {
				bare = bare.WithReference(r)
			}
			if f := btf.FuncMetadata(ins); f != nil && functions {
				bare = btf.WithFuncMetadata(bare, f)
			}
			*ins = bare
		}
	}
}

// percpuVariable is PERCPU_VARIABLE of bpf/context.h.
const percpuVariable = 0x6b65647270657263

// pseudoBTFID is BPF_PSEUDO_BTF_ID of include/uapi/linux/bpf.h.
const pseudoBTFID = asm.Register(3)

// placePercpu puts a per-CPU variable of the kernel, by its type, where the programs have
// percpuVariable; type 0: there is none, and they don't use it.
func placePercpu(spec *ebpf.CollectionSpec, id btf.TypeID) {
	for _, p := range spec.Programs {
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
	}
}

// placeFunctions puts the kernel's functions that programs call where they are called.
// The library does that too, but insists on one prototype, and these have had two. What
// the kernel does not have stays as it is, for programs that are not loaded then.
func placeFunctions(spec *ebpf.CollectionSpec, find func(name string) (btf.TypeID, error)) {
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			if !ins.IsKfuncCall() {
				continue
			}
			if id, err := find(ins.Reference()); err == nil {
				*ins = asm.Instruction{OpCode: ins.OpCode, Src: ins.Src, Constant: int64(id)}
			}
		}
	}
}
