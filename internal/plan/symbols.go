package plan

import (
	"slices"

	"kedr/internal/catalog"
)

// ModuleEvents are functions that the kernel calls when a module comes or goes, each with
// the names that the parameter which is the module has had.
var ModuleEvents = []struct{ Function, Param string }{
	{"module_arch_freeing_init", "mod"},
	{"module_arch_cleanup", "mod"},
	{"module_finalize", "me|mod"},
}

// Symbols lists the functions whose parameters a plan may ask for.
func Symbols(c *catalog.Catalog) []string {
	names := []string{"local_interrupt_disable", "kasprintf"} // to tell kernels apart
	for _, e := range ModuleEvents {
		names = append(names, e.Function)
	}
	for _, k := range c.Kinds {
		for _, t := range k.Tracepoints {
			names = append(names, "__traceiter_"+t.Name)
		}
		for _, functions := range [][]*catalog.Function{k.Obtains, k.Releases} {
			for _, f := range functions {
				names = append(append(names, f.Symbols...), f.Through...)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
