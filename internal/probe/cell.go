package probe

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cells are where objects are kept, of bpf/cell.h, in an array that is mapped here.
const (
	cellTaken = 1   // CELL_TAKEN
	cellReach = 511 // CELL_REACH
	cellSize  = int(unsafe.Sizeof(kedrCell{}))

	// By half as many again as there may be objects all of them have room close by.
	cellsLeast  = 4096
	objectsMost = 1 << 24
)

// ownCells says whether objects are kept in cells: where programs are compiled to machine
// code, and the kernel has an atomic compare and exchange and bpf_loop. Requires Linux 5.17.
func (s *Set) ownCells() bool {
	return s.kernel.Word() == 8 && s.kernel.AtLeast(5, 17) && s.kernel.HasHelper("loop")
}

// sizeObjects makes room for so many objects outstanding at one time.
func (s *Set) sizeObjects(objects uint32) error {
	if !s.ownCells() {
		s.spec.Maps["objects"].MaxEntries = objects
		return nil
	}
	if objects > objectsMost {
		return fmt.Errorf("room for %d objects outstanding: a session has it for %d at most", objects, objectsMost)
	}
	n := max(objects+objects/2, cellsLeast)
	s.spec.Maps["objects"].MaxEntries = 1
	s.spec.Maps["cells"].MaxEntries = n
	s.layout.Cells, s.layout.MaxObjects = n, objects
	return nil
}

// inCells says whether the session keeps its objects in cells.
func (s *Set) inCells() bool { return s.shared["cells"].MaxEntries() > 1 }

// cells are all of a session's, in memory that is shared with its programs.
type cells struct {
	memory []byte
	n      uint64
}

func (s *Set) mapCells() (*cells, error) {
	m := s.shared["cells"]
	memory, err := mapped(m, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, fmt.Errorf("mapping the objects: %w", err)
	}
	return &cells{memory, uint64(m.MaxEntries())}, nil
}

func (c *cells) unmap() { unix.Munmap(c.memory) }

// at is a cell so many behind another one.
func (c *cells) at(i, behind uint64) *kedrCell {
	return (*kedrCell)(unsafe.Pointer(&c.memory[int((i+behind)%c.n)*cellSize]))
}

// home is the cell that a key with this hash has for home.
func (c *cells) home(hash uint64) uint64 { return hash >> 32 * c.n >> 32 }

// each gives all objects, and looks only where the filter says that there are any. One that
// comes or goes meanwhile may be missed, or be given in part.
func (c *cells) each(v *variables, f func(key uint64, cell *kedrCell)) {
	for slot := range uint64(1 << filterBits) {
		if atomic.LoadUint32(v.filterSlot(slot)) == 0 {
			continue
		}
		first := c.home(slot << (64 - filterBits))
		last := c.home((slot+1)<<(64-filterBits) - 1)
		for home := first; home <= last; home++ {
			reach := min(uint64(atomic.LoadUint32(&c.at(home, 0).Reach)), cellReach)
			for n := range reach + 1 {
				cell := c.at(home, n)
				key := atomic.LoadUint64(&cell.Key)
				if key <= cellTaken {
					continue
				}
				// It may be another's that lives here as well.
				if h := hashOf(key); c.home(h) == home && h>>(64-filterBits) == slot {
					f(key, cell)
				}
			}
		}
	}
}

// remove takes an object out of its cell; false: it is not there any more.
func (c *cells) remove(v *variables, key uint64, cell *kedrCell) bool {
	if !atomic.CompareAndSwapUint64(&cell.Key, key, cellTaken) {
		return false
	}
	atomic.StoreUint64(&cell.Key, 0)
	atomic.AddUint32(v.held(), ^uint32(0))
	return true
}

// hashOf is hash_of (bpf/kedr.h).
func hashOf(key uint64) uint64 { return (key >> 3) * 0x9e3779b97f4a7c15 }

// eachObject gives all outstanding objects.
func (s *Set) eachObject(f func(o *kedrObject)) error {
	if !s.inCells() {
		return each(s.shared["objects"], func(_ uint64, o *kedrObject) { f(o) })
	}
	v, err := s.mapVariables()
	if err != nil {
		return err
	}
	defer v.unmap()
	c, err := s.mapCells()
	if err != nil {
		return err
	}
	defer c.unmap()
	c.each(v, func(key uint64, cell *kedrCell) {
		o := cell.Object
		if atomic.LoadUint64(&cell.Key) == key {
			f(&o)
		}
	})
	return nil
}
