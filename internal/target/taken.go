package target

import (
	"debug/elf"
	"strings"
)

// codeTables are sections that list places in code, which makes none of them
// anybody's to call (scripts/module.lds.S and arch/x86, Linux 5.10 to 7.3).
var codeTables = []string{
	"__mcount_loc", "__patchable_function_entries", ".orc_unwind", "__bug_table", "__ex_table",
	".altinstructions", ".altinstr_replacement", ".smp_locks", ".parainstructions", "__jump_table",
	".retpoline_sites", ".return_sites", ".call_sites", ".ibt_endbr_seal", ".static_call_sites",
	".cfi_sites", ".eh_frame", ".codetag", ".kcfi_traps", "__kcfi_traps",
}

// AddressTaken lists the functions, by index in Funcs, whose address is written
// somewhere: in a table of operations, in an export, in an instruction that is no
// call. Somebody else may call these.
func (m *Module) AddressTaken() (map[int]bool, error) {
	taken := make(map[int]bool)
	for number, s := range m.file.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 || isCodeTable(s.Name) {
			continue
		}
		calls := make(map[uint64]bool)
		if _, code := m.loads[number]; code {
			text, err := m.bytesOf(s)
			if err != nil {
				return nil, err
			}
			branches, err := m.relocated(number, text)
			if err != nil {
				return nil, err
			}
			for _, b := range branches {
				calls[b.reloc.offset] = true
			}
		}
		err := m.relocsOf(number, func(r reloc) {
			if calls[r.offset] || r.symbol == 0 || uint64(r.symbol) >= uint64(len(m.syms)) {
				return
			}
			sym := &m.syms[r.symbol]
			section, ok := m.loads[int(sym.section)]
			if !ok || sym.section >= elf.SHN_LORESERVE {
				return
			}
			// An operand relative to the instruction pointer counts from its own end.
			for _, at := range []uint64{sym.value + uint64(r.addend), sym.value + uint64(r.addend) + 4} {
				if i := m.FuncIndex(section, at); i >= 0 && m.Funcs[i].Offset == at {
					taken[i] = true
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return taken, nil
}

func isCodeTable(section string) bool {
	for _, t := range codeTables {
		if strings.HasPrefix(section, t) {
			return true
		}
	}
	return false
}
