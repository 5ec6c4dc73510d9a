package probe

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// mapped is the memory of an array of the programs', shared with them: its values, in steps
// of eight bytes (kernel/bpf/arraymap.c, array_map_alloc, 5.10 to 7.3), in whole pages.
func mapped(m *ebpf.Map, prot int) ([]byte, error) {
	page := os.Getpagesize()
	size := int(m.MaxEntries()) * ((int(m.ValueSize()) + 7) &^ 7)
	return unix.Mmap(m.FD(), 0, (size+page-1)&^(page-1), prot, unix.MAP_SHARED)
}

// variables are the programs' own, in memory that is shared with them.
type variables struct {
	memory []byte
	at     map[string]*ebpf.VariableSpec
}

func (s *Set) mapVariables() (*variables, error) {
	memory, err := mapped(s.shared[".bss"], unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, fmt.Errorf("mapping the programs' variables: %w", err)
	}
	return &variables{memory, s.bss}, nil
}

func (v *variables) unmap() { unix.Munmap(v.memory) }

// pointer is the i-th element of an array of elements of that size.
func (v *variables) pointer(name string, i, size int) unsafe.Pointer {
	return unsafe.Pointer(&v.memory[int(v.at[name].Offset)+i*size])
}

func (v *variables) loadCount() *uint32 { return (*uint32)(v.pointer("load_count", 0, 4)) }

// loadedAs is the load of a target that is loaded, else 0.
func (v *variables) loadedAs(target uint32) *uint32 {
	return &(*kedrLoaded)(v.pointer("loaded", int(target), int(unsafe.Sizeof(kedrLoaded{})))).Load
}

func (v *variables) lost(probe uint16, reason int) *uint64 {
	return (*uint64)(v.pointer("lost", int(probe)%maxProbes*len(reasons)+reason, 8))
}

// filter is the slot that filter_slot (bpf/kedr.h) gives a key.
func (v *variables) filter(key uint64) *uint32 { return v.filterSlot(hashOf(key) >> (64 - filterBits)) }

func (v *variables) filterSlot(i uint64) *uint32 { return (*uint32)(v.pointer("filter", int(i), 4)) }

func (v *variables) addSpare() { atomic.AddUint32((*uint32)(v.pointer("spares", 0, 4)), 1) }

// clears says that loads may be cleared.
func (v *variables) clears() *uint32 { return (*uint32)(v.pointer("clears", 0, 4)) }

// held is how many objects are in cells.
func (v *variables) held() *uint32 { return (*uint32)(v.pointer("held", 0, 4)) }
