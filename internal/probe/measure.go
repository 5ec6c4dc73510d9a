package probe

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/arch/x86/x86asm"

	"kedr/internal/target"
)

// Without BTF, what the kernel's structures look like is measured: on modules that are
// loaded, whose addresses and sizes /proc/modules has. Nothing is taken for true that
// does not hold for each of them.

// loadedModule is a line of /proc/modules (kernel/module/procfs.c, m_show).
type loadedModule struct {
	name          string
	size, address uint64
	at            uint64 // its struct module
}

func parseModules(text string) ([]loadedModule, error) {
	var out []loadedModule
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 {
			return nil, fmt.Errorf("/proc/modules: %q", line)
		}
		size, err1 := strconv.ParseUint(f[1], 10, 64)
		address, err2 := strconv.ParseUint(strings.TrimPrefix(f[5], "0x"), 16, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("/proc/modules: %q: %w", line, err)
		}
		out = append(out, loadedModule{name: f[0], size: size, address: address})
	}
	return out, nil
}

// modules lists the loaded modules with the list_head in their struct module, which is
// the second argument of m_show (kernel/module/procfs.c): it shows a line of
// /proc/modules. Others have functions of that name, which are not called for this file.
func (s *Set) modules() ([]loadedModule, error) {
	const show = "m_show"
	table, err := s.symbols.table()
	if err != nil {
		return nil, err
	}
	places := table.All(show)
	if len(places) == 0 {
		return nil, fmt.Errorf("%w %s", errNoSymbol, show)
	}
	answer, err := ebpf.NewMap(s.spec.Maps["answer"])
	if err != nil {
		return nil, permission(fmt.Errorf("making map answer: %w", err))
	}
	defer answer.Close()
	constants := s.constants(kedrProbeSpec{Args: 2, Address: 1})
	constants["asker"] = uint32(os.Getpid())
	prog, err := s.load("argument", constants, "", map[string]*ebpf.Map{"answer": answer})
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	var text []byte
	err = WithTracefs(func(dir string) (err error) {
		if err := removeStale(dir); err != nil {
			return err
		}
		for i, at := range places {
			event := fmt.Sprintf("modules%d", i)
			a, err := s.attachKprobe(dir, event, "p", fmt.Sprintf("%#x", at), prog)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.close(), removeKprobe(dir, s.jumps, event)) }()
		}
		text, err = os.ReadFile("/proc/modules")
		return err
	})
	if err != nil {
		return nil, err
	}
	var found kedrAnswer
	if err := answer.Lookup(uint32(0), &found); err != nil {
		return nil, err
	}
	mods, err := parseModules(string(text))
	if err != nil {
		return nil, err
	}
	// A line that did not fit was shown once more.
	var at []uint64
	for _, a := range found.Word[:min(found.N, uint64(len(found.Word)))] {
		if len(at) == 0 || at[len(at)-1] != a {
			at = append(at, a)
		}
	}
	mods = mods[:min(len(mods), len(at))]
	for i := range mods {
		// The list follows a word with the state, and the name follows the list.
		mods[i].at = at[i] - uint64(s.layout.Word)
	}
	return mods, nil
}

// ErrNoModules says that nothing can be measured.
var ErrNoModules = errors.New("the kernel has no BTF, and no module is loaded to measure struct module on: load one first (modprobe loop)")

// measureLayout finds out what struct module looks like. What the file is that types
// were read from, if any, has to agree.
func (s *Set) measureLayout(m *target.Module) error {
	if err := s.openSymbols(); err != nil {
		return err
	}
	mods, err := s.modules()
	if err != nil {
		return fmt.Errorf("finding the structures of loaded modules: %w", err)
	}
	if len(mods) == 0 {
		return ErrNoModules
	}
	size, name := m.StructModule()
	if name < 0 {
		return fmt.Errorf("%s: its .gnu.linkonce.this_module has no name in it", m.Path)
	}
	l := &s.layout
	l.ModuleName = uint32(name)
	images := make([]moduleImage, len(mods))
	for i, mod := range mods {
		b, err := s.memory(mod.at, min(size, maxMemory))
		if err != nil {
			return fmt.Errorf("measuring struct module: %w", err)
		}
		images[i] = moduleImage{mod, b, int(l.Word)}
	}
	if err := measureModule(l, images, s.kernel.AtLeast(6, 4)); err != nil {
		return err
	}
	l.Symtab, l.NumSymtab = 0, l.Word // struct mod_kallsyms (include/linux/module.h)
	l.FramePointers = uint32(flag(!s.has("orc_sort_cmp") && !s.has("unwind_module_init")))
	given := *l
	if typesLayout(s.kernel, &given) != nil {
		// They are incomplete, or there are none.
		if n, err := s.kernel.StructSize("page"); err == nil {
			l.StructPage = n
		}
		return nil
	}
	l.StructPage = given.StructPage
	if given != *l {
		return fmt.Errorf("the types of struct module that were given (--btf, or the module's debug information) are not this kernel's: by them the text is at %d, that of init at %d, kallsyms at %d; in the loaded modules at %d, %d, %d",
			given.CoreBase, given.InitBase, given.Kallsyms, l.CoreBase, l.InitBase, l.Kallsyms)
	}
	return nil
}

func (s *Set) has(symbol string) bool {
	_, _, err := s.find(symbol)
	return err == nil
}

// moduleImage is what lies in the struct module of a module.
type moduleImage struct {
	loadedModule
	b    []byte
	word int
}

func (i *moduleImage) at(offset int) uint64 {
	var v uint64
	if offset+i.word > len(i.b) {
		return 0
	}
	for n := range i.word {
		v |= uint64(i.b[offset+n]) << (8 * n)
	}
	return v
}

func (i *moduleImage) half(offset int) uint32 { return uint32(i.at(offset)) }

// measureModule finds the members of struct module (include/linux/module.h, 5.10 to 7.3):
//
//   - the areas, each { base, ..., size, ..., mtn { mod, ... } }: two up to 6.3, those of core and
//     of init, with the size of the text behind the size; seven from 6.4 on, the first
//     that of the text, the fifth that of the text of init. Their mtn.mod points to the
//     module, which tells how far apart they are.
//   - kallsyms, a pointer to what comes next (core_kallsyms), once init has run.
func measureModule(l *kedrKernelLayout, images []moduleImage, areas bool) error {
	word := int(l.Word)
	everywhere := func(from int, holds func(i *moduleImage, offset int) bool) []int {
		var out []int
		for offset := from; offset+word <= len(images[0].b); offset += word {
			ok := true
			for i := range images {
				ok = ok && holds(&images[i], offset)
			}
			if ok {
				out = append(out, offset)
			}
		}
		return out
	}
	for _, i := range images {
		text, _, _ := strings.Cut(string(i.b[min(int(l.ModuleName), len(i.b)):]), "\x00")
		if text != i.name {
			return fmt.Errorf("struct module is not as the file of the target has it: where module %s should have its name there is %q", i.name, text)
		}
	}
	bases := everywhere(0, func(i *moduleImage, o int) bool { return i.at(o) == i.address })
	if len(bases) == 0 {
		return errors.New("measuring struct module: the addresses in /proc/modules are not found there")
	}
	base := bases[0]
	selves := everywhere(base, func(i *moduleImage, o int) bool { return i.at(o) == i.loadedModule.at })
	want := 2
	if areas {
		want = 7
	}
	if len(selves) < want {
		return fmt.Errorf("measuring struct module: %d areas are found, %d are expected", len(selves), want)
	}
	stride := selves[1] - selves[0]
	for n := range want - 1 {
		if selves[n+1]-selves[n] != stride {
			return errors.New("measuring struct module: its areas are not equally far apart")
		}
	}
	// Where in an area its size is: all together are what /proc/modules says.
	var sizes []int
	for o := word; o < stride; o += 4 {
		fits := true
		for _, i := range images {
			var sum uint64
			for n := range want {
				sum += uint64(i.half(base + n*stride + o))
			}
			fits = fits && sum == i.size
		}
		if fits {
			sizes = append(sizes, o)
		}
	}
	if len(sizes) != 1 {
		return fmt.Errorf("measuring struct module: the sizes of its areas could be in %d places, by what /proc/modules says", len(sizes))
	}
	size := uint32(sizes[0])
	l.CoreBase, l.InitBase = uint32(base), uint32(base+stride)
	l.CoreSize, l.InitSize = l.CoreBase+size+4, l.InitBase+size+4 // text_size, behind size
	if areas {
		const initText = 4 // MOD_INIT_TEXT
		l.InitBase = uint32(base + initText*stride)
		l.CoreSize, l.InitSize = l.CoreBase+size, l.InitBase+size
	}
	kallsyms := everywhere(0, func(i *moduleImage, o int) bool { return i.at(o) == i.loadedModule.at+uint64(o+word) })
	if len(kallsyms) != 1 {
		return fmt.Errorf("measuring struct module: kallsyms could be in %d places", len(kallsyms))
	}
	l.Kallsyms = uint32(kallsyms[0])
	return nil
}

// address is a sum of addresses in the kernel's own width.
func (s *Set) address(a uint64) uint64 {
	if s.layout.Word == 4 {
		return uint64(uint32(a))
	}
	return a
}

// preemptCounter finds the variable of each CPU that has the preemption counter: by name
// or, where the table of symbols has functions only (without CONFIG_KALLSYMS_ALL), in the
// code that adds a hardware interrupt to it (irq_enter_rcu, HARDIRQ_OFFSET).
func (s *Set) preemptCounter() (uint64, error) {
	if at, _, err := s.find("__preempt_count"); err == nil {
		return at, nil
	}
	if off, err := s.kernel.Field("pcpu_hot", "preempt_count"); err == nil {
		at, _, err := s.find("pcpu_hot")
		return at + uint64(off), err
	}
	const hardirq = 0x10000 // include/linux/preempt.h
	var found uint64
	err := s.decode("irq_enter_rcu", func(ip uint64, in x86asm.Inst) bool {
		mem, ok := in.Args[0].(x86asm.Mem)
		imm, ok2 := in.Args[1].(x86asm.Imm)
		if in.Op != x86asm.ADD || !ok || !ok2 || imm != hardirq || mem.Segment != x86asm.FS && mem.Segment != x86asm.GS {
			return false
		}
		found = uint64(mem.Disp)
		if mem.Base == x86asm.RIP {
			found += ip + uint64(in.Len)
		}
		found = s.address(found)
		return true
	})
	return found, err
}

// percpuOffsets finds the table of where each CPU's variables are: by name, or in code
// that looks at another CPU's, by its number.
func (s *Set) percpuOffsets() (uint64, error) {
	if at, _, err := s.find("__per_cpu_offset"); err == nil {
		return at, nil
	}
	var last error
	votes := make(map[uint64]int)
	for _, function := range []string{"idle_cpu", "nr_iowait_cpu", "get_cpu_device", "cpu_curr_snapshot", "sched_idle_cpu", "available_idle_cpu"} {
		err := s.decode(function, func(ip uint64, in x86asm.Inst) bool {
			for _, arg := range in.Args {
				if mem, ok := arg.(x86asm.Mem); ok && mem.Base == 0 && mem.Index != 0 && int(mem.Scale) == int(s.layout.Word) && mem.Disp != 0 {
					votes[s.address(uint64(mem.Disp))]++
					return true
				}
			}
			return false
		})
		if err != nil {
			last = err
		}
	}
	for at, n := range votes {
		if n >= 2 && len(votes) == 1 {
			return at, nil
		}
	}
	return 0, errors.Join(fmt.Errorf("the code that uses it does not agree (%d places)", len(votes)), last)
}

// decode goes through the code of a function until found.
func (s *Set) decode(function string, found func(ip uint64, in x86asm.Inst) bool) error {
	start, size, err := s.find(function)
	if err != nil {
		return err
	}
	code, err := s.memory(start, int(min(size, 512)))
	if err != nil {
		return fmt.Errorf("reading the code of %s: %w", function, err)
	}
	at := 0
	if bytes.HasPrefix(code, []byte{0xf3, 0x0f, 0x1e}) {
		at = 4 // endbr, which the decoder does not know
	}
	for at < len(code) {
		in, err := x86asm.Decode(code[at:], int(8*s.layout.Word))
		if err != nil {
			break
		}
		if found(start+uint64(at), in) {
			return nil
		}
		at += in.Len
	}
	return fmt.Errorf("the code of %s is not as expected", function)
}
