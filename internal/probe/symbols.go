package probe

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"kedr/internal/kernel"
	"kedr/internal/plan"
)

// symbols asks the kernel where things are. From 5.16 on a program does, name by
// name; before, /proc/kallsyms is read, and a program reads memory.
type symbols struct {
	finder *ebpf.Program // nil before 5.16
	peek   *ebpf.Program
	answer *ebpf.Map
	table  func() (*kernel.Symbols, error)
}

var errNoSymbol = errors.New("the kernel has no symbol")

func (s *Set) openSymbols() error {
	s.symbols.table = s.kernel.Symbols
	// Where there is no BTF, the table has been read for the plan.
	if !s.kernel.HasHelper("kallsyms_lookup_name") || !s.kernel.OwnTypes() {
		return nil
	}
	prog, err := s.load("find_symbol", nil, "", nil)
	if err != nil {
		if errors.Is(err, ErrLockedDown) {
			return err
		}
		return fmt.Errorf("loading the symbol look-up: %w", err)
	}
	s.symbols.finder = prog
	return nil
}

func (y *symbols) close() error {
	var errs []error
	for _, p := range []*ebpf.Program{y.finder, y.peek} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	if y.answer != nil {
		errs = append(errs, y.answer.Close())
	}
	return errors.Join(errs...)
}

// query runs find_symbol.
func (y *symbols) query(q kedrQuery) (kedrQuery, error) {
	name := goString(q.Name[:])
	ret, err := y.finder.Run(&ebpf.RunOptions{Context: &q, ContextOut: &q})
	if err != nil {
		return q, fmt.Errorf("looking up %s: %w", name, err)
	}
	if ret != 0 {
		return q, fmt.Errorf("%w %s", errNoSymbol, name)
	}
	return q, nil
}

// find returns a symbol's address and, for a function, its size.
func (s *Set) find(name string) (address, size uint64, err error) {
	if s.symbols.finder == nil {
		table, err := s.symbols.table()
		if err != nil {
			return 0, 0, err
		}
		sym, ok := table.Find(name)
		if !ok {
			return 0, 0, fmt.Errorf("%w %s", errNoSymbol, name)
		}
		return sym.Address, sym.Size, nil
	}
	var q kedrQuery
	if !setString(q.Name[:], name) {
		return 0, 0, fmt.Errorf("symbol %q: name too long", name)
	}
	if q, err = s.symbols.query(q); err != nil {
		return 0, 0, err
	}
	sym, _ := ParseSymbol(goString(q.Text[:]))
	return q.Address, sym.Size, nil
}

// word reads kernel memory.
func (s *Set) word(address uint64) (uint64, error) {
	if s.symbols.finder != nil {
		q, err := s.symbols.query(kedrQuery{Address: address})
		return q.Value, err
	}
	b, err := s.memory(address, s.kernel.Word())
	if err != nil {
		return 0, err
	}
	return s.wordAt(b, 0), nil
}

// wordAt is a word of the kernel's in what was read of its memory.
func (s *Set) wordAt(b []byte, offset int) uint64 {
	if s.kernel.Word() == 4 {
		return uint64(binary.NativeEndian.Uint32(b[offset:]))
	}
	return binary.NativeEndian.Uint64(b[offset:])
}

// maxMemory is how much of the kernel's memory is read at once.
const maxMemory = 8 * len(kedrAnswer{}.Word)

// memory reads kernel memory.
func (s *Set) memory(address uint64, size int) ([]byte, error) {
	y := &s.symbols
	if y.peek == nil {
		answer, err := ebpf.NewMap(s.spec.Maps["answer"])
		if err != nil {
			return nil, permission(fmt.Errorf("making map answer: %w", err))
		}
		y.answer = answer
		if y.peek, err = s.load("peek", nil, "", map[string]*ebpf.Map{"answer": answer}); err != nil {
			return nil, fmt.Errorf("loading the program that reads memory: %w", err)
		}
	}
	if _, err := y.peek.Run(&ebpf.RunOptions{Context: []uint64{address, uint64(size)}}); err != nil {
		return nil, fmt.Errorf("reading kernel memory: %w", err)
	}
	b := make([]byte, y.answer.ValueSize())
	if err := y.answer.Lookup(uint32(0), &b); err != nil {
		return nil, fmt.Errorf("reading kernel memory: %w", err)
	}
	if binary.NativeEndian.Uint64(b) != uint64(size) {
		return nil, fmt.Errorf("the kernel's memory at %#x can't be read", address)
	}
	return b[8 : 8+size], nil
}

// name names the function that the call before an address is in.
func (s *Set) name(address uint64) (Symbol, bool) {
	if s.symbols.finder == nil {
		table, err := s.symbols.table()
		if err != nil {
			return Symbol{}, false
		}
		sym, ok := table.At(address - 1)
		return Symbol{Name: sym.Name, Offset: address - sym.Address, Size: sym.Size, Module: sym.Module}, ok
	}
	q, err := s.symbols.query(kedrQuery{Address: address})
	if err != nil {
		return Symbol{}, false
	}
	return ParseSymbol(goString(q.Text[:]))
}

// calibrate finds out whether trampolines are entered by a jump, on a function that
// the kernel keeps for testing them and calls from one place (net/bpf/test_run.c,
// bpf_prog_test_run_tracing). Kernels before 6.18 have no such jumps.
func (s *Set) calibrate() error {
	const function, caller = "bpf_fentry_test2", "bpf_prog_test_run_tracing"
	if s.kprobes || !s.kernel.AtLeast(6, 18) {
		return nil
	}
	params, err := s.kernel.Params(function)
	if err != nil {
		return err
	}
	answer, err := ebpf.NewMap(s.spec.Maps["answer"])
	if err != nil {
		return permission(fmt.Errorf("making map answer: %w", err))
	}
	defer answer.Close()
	constants := s.constants(kedrProbeSpec{Args: uint8(len(params)), Address: plan.NoArg})
	prog, err := s.load("calibrate", constants, function, map[string]*ebpf.Map{"answer": answer})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return permission(fmt.Errorf("attaching to %s: %w", function, err))
	}
	defer l.Close()
	if _, err := prog.Run(&ebpf.RunOptions{}); err != nil {
		return fmt.Errorf("calling %s: %w", function, err)
	}
	var found kedrAnswer
	if err := answer.Lookup(uint32(0), &found); err != nil || found.Word[0] == 0 {
		return err
	}
	start, size, err := s.find(caller)
	if err == nil && found.Word[0]-start < size {
		s.layout.Jumps = 1
	}
	return err
}
