package kernel

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// KernelSymbol is a symbol of the running kernel.
type KernelSymbol struct {
	Name    string
	Module  string
	Address uint64
	Size    uint64 // up to the next symbol
}

// Symbols is the kernel's table of symbols.
type Symbols struct {
	sorted []KernelSymbol
	byName map[string]int
}

// Symbols reads /proc/kallsyms, once. It takes some 100 ms: kernels from 5.16 on can
// be asked by name instead.
func (k *Kernel) Symbols() (*Symbols, error) { return k.symbols() }

func readKallsyms() (*Symbols, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's symbols: %w", err)
	}
	defer f.Close()
	return parseSymbols(f)
}

// parseSymbols reads lines "address type name [module]" (kernel/kallsyms.c, s_show).
func parseSymbols(r io.Reader) (*Symbols, error) {
	var s Symbols
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		address, rest, _ := strings.Cut(sc.Text(), " ")
		_, rest, ok := strings.Cut(rest, " ")
		name, module, _ := strings.Cut(rest, "\t")
		a, err := strconv.ParseUint(address, 16, 64)
		if !ok || err != nil || a == 0 {
			continue
		}
		s.sorted = append(s.sorted, KernelSymbol{Name: name, Module: strings.Trim(module, "[]"), Address: a})
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reading the kernel's symbols: %w", err)
	}
	if len(s.sorted) == 0 {
		return nil, fmt.Errorf("the kernel hides its symbols' addresses (kernel.kptr_restrict): run as root, or sysctl kernel.kptr_restrict=1")
	}
	slices.SortStableFunc(s.sorted, func(a, b KernelSymbol) int { return cmp.Compare(a.Address, b.Address) })
	s.byName = make(map[string]int, len(s.sorted))
	for i := range s.sorted {
		for j := i + 1; j < len(s.sorted); j++ {
			if s.sorted[j].Address > s.sorted[i].Address {
				s.sorted[i].Size = s.sorted[j].Address - s.sorted[i].Address
				break
			}
		}
		if _, ok := s.byName[s.sorted[i].Name]; !ok {
			s.byName[s.sorted[i].Name] = i
		}
	}
	return &s, nil
}

// Find returns the symbol of this name, the lowest of several.
func (s *Symbols) Find(name string) (KernelSymbol, bool) {
	i, ok := s.byName[name]
	if !ok {
		return KernelSymbol{}, false
	}
	return s.sorted[i], true
}

// All returns the addresses of the kernel's own symbols of this name.
func (s *Symbols) All(name string) []uint64 {
	var out []uint64
	for _, sym := range s.sorted {
		if sym.Name == name && sym.Module == "" {
			out = append(out, sym.Address)
		}
	}
	return out
}

// At returns the symbol that an address is in.
func (s *Symbols) At(address uint64) (KernelSymbol, bool) {
	i, found := slices.BinarySearchFunc(s.sorted, address, func(k KernelSymbol, a uint64) int { return cmp.Compare(k.Address, a) })
	if !found {
		i--
	}
	if i < 0 || address-s.sorted[i].Address >= max(s.sorted[i].Size, 1) {
		return KernelSymbol{}, false
	}
	return s.sorted[i], true
}
