package probe

import (
	"fmt"
	"strconv"

	"golang.org/x/arch/x86/x86asm"

	"kedr/internal/kernel"
)

// Accessors knows, for kernels without BTF, where members of some structures are that no
// module sees: by the code of a function whose whole work is to go there.
type Accessors struct{ set *Set }

// ReadAccessors makes ready to read the kernel's code. Close it.
func ReadAccessors(k *kernel.Kernel) (*Accessors, error) {
	spec, err := readCompiled()
	if err != nil {
		return nil, err
	}
	s := &Set{spec: spec, kernel: k}
	s.layout.Word = uint32(k.Word())
	if err := s.openSymbols(); err != nil {
		return nil, err
	}
	return &Accessors{s}, nil
}

// Close lets go of what was needed to read.
func (a *Accessors) Close() error { return a.set.symbols.close() }

// accessors are by structure and member. Each is told an instruction, and the register
// that the function's first argument is in.
var accessors = map[string]struct {
	function string
	offset   func(in x86asm.Inst, first x86asm.Reg) (int64, bool)
}{
	// return s->object_size; (mm/slab_common.c, 5.10 to 7.3)
	"kmem_cache.object_size": {"kmem_cache_size", func(in x86asm.Inst, first x86asm.Reg) (int64, bool) {
		mem, ok := in.Args[1].(x86asm.Mem)
		return mem.Disp, ok && in.Op == x86asm.MOV && mem.Base == first && mem.Index == 0
	}},
	// container_of(res, struct devres, data) (drivers/base/devres.c, 5.10 to 7.3)
	"devres.data": {"devres_free", func(in x86asm.Inst, first x86asm.Reg) (int64, bool) {
		if mem, ok := in.Args[1].(x86asm.Mem); ok && in.Op == x86asm.LEA && mem.Base == first && mem.Index == 0 && mem.Disp < 0 {
			return -mem.Disp, true
		}
		imm, ok := in.Args[1].(x86asm.Imm)
		reg, ok2 := in.Args[0].(x86asm.Reg)
		return int64(imm), ok && ok2 && in.Op == x86asm.SUB && reg == first
	}},
	// atomic_dec_and_test(&bio->__bi_cnt) (block/bio.c, 5.10 to 7.3)
	"bio.__bi_cnt.counter": {"bio_put", func(in x86asm.Inst, _ x86asm.Reg) (int64, bool) {
		mem, ok := in.Args[0].(x86asm.Mem)
		return mem.Disp, ok && in.Op == x86asm.DEC && in.Prefix[0]&0xff == 0xf0 && mem.Index == 0
	}},
}

// Field returns where a member lies.
func (a *Accessors) Field(structure, path string) (uint32, error) {
	name := structure + "." + path
	accessor, ok := accessors[name]
	if !ok {
		return 0, fmt.Errorf("no function tells where %s is", name)
	}
	first := x86asm.RDI
	if a.set.layout.Word == 4 {
		first = x86asm.EAX
	}
	var offset int64
	err := a.set.decode(accessor.function, func(_ uint64, in x86asm.Inst) bool {
		o, ok := accessor.offset(in, first)
		if ok {
			offset = o
		}
		return ok
	})
	if err != nil {
		return 0, err
	}
	const most = 1024
	if offset < 0 || offset > most {
		return 0, fmt.Errorf("the code of %s is not as expected: %s at %s", accessor.function, name, strconv.FormatInt(offset, 10))
	}
	return uint32(offset), nil
}

// StructSize returns an error: no function tells it.
func (a *Accessors) StructSize(structure string) (uint32, error) {
	return 0, fmt.Errorf("no function tells the size of struct %s", structure)
}
