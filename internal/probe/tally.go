package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

const (
	maxStacks  = 16384 // unless something else is asked for
	stacksMost = 1 << 20
)

// sizeStacks makes room for so many different call stacks. Each has a slot, which the
// programs give out by number where the kernel can add and tell what was there (Linux 5.12).
func (s *Set) sizeStacks(stacks uint32) error {
	if stacks > stacksMost {
		return fmt.Errorf("room for %d call stacks: a session has it for %d at most", stacks, stacksMost)
	}
	s.spec.Maps["stacks"].MaxEntries = stacks
	s.spec.Maps["tallies"].MaxEntries = stacks + 1
	s.spec.Maps["spare_slots"].MaxEntries = stacks
	if s.kernel.AtLeast(5, 12) {
		s.layout.MaxSlots = stacks
	}
	return nil
}

// spareSlots gives slots to the programs that no stack has.
func (s *Set) spareSlots(v *variables, slots []uint32) error {
	for _, slot := range slots {
		if err := s.shared["spare_slots"].Put(nil, slot); err != nil {
			return fmt.Errorf("giving back the slot of a stack: %w", err)
		}
		v.addSpare()
	}
	return nil
}

// allSpare is for kernels whose programs can't count slots.
func (s *Set) allSpare() error {
	if s.layout.MaxSlots > 0 {
		return nil
	}
	v, err := s.mapVariables()
	if err != nil {
		return err
	}
	defer v.unmap()
	slots := make([]uint32, s.shared["stacks"].MaxEntries())
	for i := range slots {
		slots[i] = uint32(i + 1)
	}
	return s.spareSlots(v, slots)
}

// tallies reads what was obtained on the stacks, by slot.
func (s *Set) tallies() ([]kedrTally, error) {
	m := s.shared["tallies"]
	slots, err := s.variable32("slots")
	if err != nil {
		return nil, err
	}
	n := m.MaxEntries()
	if slots > 0 {
		n = min(n, slots+1)
	}
	keys, values := make([]uint32, n), make([]kedrTally, n)
	var cursor ebpf.MapBatchCursor
	if _, err := m.BatchLookup(&cursor, keys, values, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("reading %v: %w", m, err)
	}
	return values, nil
}

// tallyOf is a slot's; that of no stack where there is none.
func tallyOf(tallies []kedrTally, slot uint32) kedrTally {
	if int64(slot) >= int64(len(tallies)) {
		return kedrTally{}
	}
	return tallies[slot]
}
