// Package target reads the module under analysis from its file: what it
// imports, where it calls, what its functions are called.
//
// Nothing here touches a running kernel. Positions are given as an executable
// section and an offset in it, because the address of a section is known only
// once the module has been loaded.
package target

import (
	"debug/elf"
	"strings"
)

// Module is a kernel module as its file describes it.
type Module struct {
	Path     string      // the file it was read from, absolute
	Name     string      // the kernel's name for it: '-' turned into '_'
	Vermagic string      // "6.1.0-56-amd64 SMP preempt mod_unload modversions"
	Depends  []string    // modules it needs, by kernel name
	Machine  elf.Machine // what it was built for
	BuildID  string      // .note.gnu.build-id in hex, empty when it has none

	Imports  []Import  // undefined symbols, sorted by name
	Sections []Section // executable sections that the kernel loads
	Funcs    []Func    // functions, sorted by section, then offset
	Calls    []Call    // direct calls and jumps to other functions, sorted by section, then end

	// SymbolCount is the number of entries of .symtab, the null entry
	// included. The kernel keeps the whole table until init has run, so the
	// count tells a loaded module from another build of the same name.
	SymbolCount int
	HasLines    bool // the file has DWARF line information

	image []byte      // the ELF file, decompressed
	file  *elf.File   // section headers of image
	syms  []symbol    // .symtab, the null entry included
	loads map[int]int // ELF section number to index in Sections
	hot   map[int]int // index in Funcs of a cold part to that of its function
}

// Import is a symbol that the module expects the kernel or another module to
// provide.
type Import struct {
	Name string
	Weak bool
}

// Section is an executable section.
type Section struct {
	Name  string
	Index uint16 // in the ELF file
	Size  uint64
	Init  bool // freed by the kernel after the module's init function

	// Symbol is the index in .symtab of a symbol defined in this section and
	// SymbolValue that symbol's offset in it. While the module is loading, the
	// kernel's copy of that entry holds the symbol's address, hence the
	// section's (kernel/module/main.c, simplify_symbols).
	Symbol      uint32
	SymbolValue uint64
}

// Func is a function of the module.
type Func struct {
	Name    string
	Section int // index in Module.Sections
	Offset  uint64
	Size    uint64 // in bytes; up to the next function where the file gives none
}

// Call is a direct call or jump out of a function.
type Call struct {
	Section int    // index in Module.Sections
	End     uint64 // offset just past the instruction: the return address of a call
	Symbol  string // the import, or the module's own function, that it goes to
	Import  bool   // Symbol is an import
	Tail    bool   // a jmp: the callee returns to this function's caller

	Conditional bool // a jcc, a byte longer than a jmp where its operand is relocated

	// Callee is the index in Module.Funcs of the module's own function that
	// it goes to: two of them may share a name. Unused for an import.
	Callee int
}

// Release is the kernel release that the module was built for, the first word
// of Vermagic.
func (m *Module) Release() string {
	release, _, _ := strings.Cut(m.Vermagic, " ")
	return release
}

// Image returns the ELF file, decompressed. It is not to be changed.
func (m *Module) Image() []byte { return m.image }
