package probe

import (
	"errors"
	"fmt"
	"math"

	"kedr/internal/kernel"
	"kedr/internal/target"
)

// findLayout finds out where the kernel keeps what the programs look at. What the types
// say of struct module is held against the modules that are loaded, where they are not
// the kernel's own.
func (s *Set) findLayout(m *target.Module) error {
	s.layout = kedrKernelLayout{Word: 8, StackShift: 14, SymSize: 24, SymValue: 8} // Elf64_Sym
	if s.kernel.Word() == 4 {
		s.layout.Word, s.layout.StackShift, s.layout.SymSize, s.layout.SymValue = 4, 13, 16, 4 // Elf32_Sym
	}
	if s.kernel.OwnTypes() {
		return typesLayout(s.kernel, &s.layout)
	}
	return s.measureLayout(m)
}

func typesLayout(k *kernel.Kernel, l *kedrKernelLayout) error {
	field := func(to *uint32, structure, path string) error {
		off, err := k.Field(structure, path)
		*to = off
		return err
	}
	if err := errors.Join(
		field(&l.ModuleName, "module", "name"),
		field(&l.Kallsyms, "module", "kallsyms"),
		field(&l.Symtab, "mod_kallsyms", "symtab"),
		field(&l.NumSymtab, "mod_kallsyms", "num_symtab"),
	); err != nil {
		return err
	}
	size, err := k.StructSize("page")
	if err != nil {
		return err
	}
	l.StructPage = size
	// include/linux/module.h: one memory area a type since 6.4, two layouts before.
	initText, err := k.Enum("mod_mem_type", "MOD_INIT_TEXT")
	if err != nil {
		return errors.Join(
			field(&l.CoreBase, "module", "core_layout.base"),
			field(&l.CoreSize, "module", "core_layout.text_size"),
			field(&l.InitBase, "module", "init_layout.base"),
			field(&l.InitSize, "module", "init_layout.text_size"),
		)
	}
	return errors.Join(
		field(&l.CoreBase, "module", "mem[0].base"), // MOD_TEXT
		field(&l.CoreSize, "module", "mem[0].size"),
		field(&l.InitBase, "module", fmt.Sprintf("mem[%d].base", initText)),
		field(&l.InitSize, "module", fmt.Sprintf("mem[%d].size", initText)),
	)
}

// quicken finds what spares the programs calls of helpers. What is not there they do
// without.
func (s *Set) quicken() {
	k := s.kernel
	if !k.OwnTypes() {
		s.layout.PercpuCount = math.MaxUint32
		placePercpu(s.spec, 0)
		return
	}
	id, err := k.PerCPU("__preempt_count")
	s.layout.PercpuCount = 0
	if err != nil {
		if id, err = k.PerCPU("pcpu_hot"); err == nil {
			s.layout.PercpuCount, err = k.Field("pcpu_hot", "preempt_count")
		}
	}
	if err != nil {
		id, s.layout.PercpuCount = 0, math.MaxUint32
	}
	placePercpu(s.spec, id)
	placeFunctions(s.spec, k.Function)
	if k.HasHelper("get_current_task_btf") {
		if comm, err := k.Field("task_struct", "comm"); err == nil {
			s.layout.TaskComm = comm
		}
		if pid, err := k.Field("task_struct", "pid"); err == nil {
			s.layout.TaskPid = pid
		}
	}
	if _, err := k.Function("bpf_rdonly_cast"); err == nil {
		if id, err := k.Struct("pt_regs"); err == nil {
			s.layout.FrameType = uint32(id)
		}
	}
	s.layout.Loops = uint32(flag(k.HasHelper("loop")))
	s.layout.FuncArgs = uint32(flag(k.HasHelper("get_func_arg")))
}
