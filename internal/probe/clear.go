package probe

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// Clear forgets what the given targets, by their index, have obtained and released;
// without any, what all have.
//
// The programs go on meanwhile, and each call is forgotten or counted as a whole: a
// target that is loaded goes on under a new load, whose account is empty, and the
// loads so far are marked as cleared, with which all that was done in their name is
// nobody's at once (bpf/clear.h). Only then is room made.
func (s *Set) Clear(targets ...int) error {
	v, err := s.mapVariables()
	if err != nil {
		return err
	}
	defer v.unmap()
	atomic.StoreUint32(v.clears(), 1)
	// A target that comes or goes at this very moment makes it necessary to look again.
	for range 100 {
		done, err := s.clear(v, targets)
		if err == nil && done {
			err = s.sweep(v)
		}
		if err != nil {
			return fmt.Errorf("clearing: %w", err)
		}
		if done {
			return nil
		}
	}
	return errors.New("clearing: targets are loaded and unloaded all the time: try again")
}

const (
	loadNone = 0          // LOAD_NONE
	noTarget = ^uint32(0) // of a load that was cleared
)

// fork is a target's last load.
type fork struct{ target, last uint32 }

// clear does the work but for the sweeping; false: it has to be done again.
func (s *Set) clear(v *variables, targets []int) (done bool, err error) {
	loads, count := s.shared["loads"], v.loadCount()
	n := atomic.LoadUint32(count)
	old, forks, err := s.lastLoads(n, targets)
	if err != nil || len(old) == 0 {
		return err == nil, err
	}
	if n+uint32(len(forks)) > loads.MaxEntries() {
		return false, fmt.Errorf("a session has room for %d loads and clears, and they are used up: execute 'kedr restart'", loads.MaxEntries())
	}
	if !atomic.CompareAndSwapUint32(count, n, n+uint32(len(forks))) {
		return false, nil
	}
	// Whoever has read the count before, and takes a load that is ours now, ends.
	if err := wait(); err != nil {
		return false, err
	}
	oldNow, forksNow, err := s.lastLoads(n, targets)
	if err != nil || !slices.Equal(old, oldNow) || !slices.Equal(forks, forksNow) {
		return false, err
	}
	last := make([]kedrLoad, len(forks))
	for i, f := range forks {
		var ours kedrLoad
		if err := errors.Join(loads.Lookup(n+uint32(i), &ours), loads.Lookup(f.last-1, &last[i])); err != nil {
			return false, err
		}
		if ours.State != loadNone {
			return false, nil
		}
	}
	for i, l := range last {
		l.Allocations, l.AllocatedBytes, l.Frees, l.WrongFrees, l.Mismatched, l.Live, l.LiveBytes = 0, 0, 0, 0, 0, 0, 0
		if err := loads.Put(n+uint32(i), &l); err != nil {
			return false, err
		}
	}
	for i, f := range forks {
		atomic.CompareAndSwapUint32(v.loadedAs(f.target), f.last, n+uint32(i)+1)
	}
	// From here on nothing is done in the name of the old loads.
	if err := wait(); err != nil {
		return false, err
	}
	var torn []uint32
	for i, f := range forks {
		id := n + uint32(i) + 1
		if atomic.LoadUint32(v.loadedAs(f.target)) == id {
			continue
		}
		// It is not loaded; and if only the old load was told, the new one is not true.
		var l kedrLoad
		if err := loads.Lookup(id-1, &l); err != nil {
			return false, err
		}
		if l.Unloaded == 0 {
			torn = append(torn, id)
		}
	}
	if len(torn) > 0 {
		return false, s.mark(torn)
	}
	return true, s.mark(old)
}

// lastLoads lists the loads of some targets among the first n, and each target's last.
func (s *Set) lastLoads(n uint32, targets []int) (ids []uint32, forks []fork, err error) {
	last := make([]uint32, MaxTargets)
	for i := range min(n, s.shared["loads"].MaxEntries()) {
		var l kedrLoad
		if err := s.shared["loads"].Lookup(i, &l); err != nil {
			return nil, nil, fmt.Errorf("reading load %d: %w", i+1, err)
		}
		if l.State == loadNone || l.Target >= MaxTargets || len(targets) > 0 && !slices.Contains(targets, int(l.Target)) {
			continue
		}
		ids = append(ids, i+1)
		last[l.Target] = i + 1
	}
	for t, id := range last {
		if id != 0 {
			forks = append(forks, fork{uint32(t), id})
		}
	}
	return ids, forks, nil
}

// mark makes loads cleared ones.
func (s *Set) mark(ids []uint32) error {
	for _, id := range ids {
		if err := s.shared["loads"].Put(id-1, &kedrLoad{Target: noTarget}); err != nil {
			return fmt.Errorf("marking load %d: %w", id, err)
		}
	}
	return nil
}

// sweep makes room of what belongs to cleared loads.
func (s *Set) sweep(v *variables) error {
	// Whoever has seen it as it was ends.
	if err := wait(); err != nil {
		return err
	}
	cleared := make(map[uint32]bool)
	for i := range min(atomic.LoadUint32(v.loadCount()), s.shared["loads"].MaxEntries()) {
		var l kedrLoad
		if err := s.shared["loads"].Lookup(i, &l); err != nil {
			return fmt.Errorf("reading load %d: %w", i+1, err)
		}
		cleared[i+1] = l.State == loadNone && l.Target == noTarget
	}
	// A wrong release that stays may tell of an object of a load that was cleared.
	told := make(map[uint64]bool)
	if err := removeIf(s.shared["wrongs"], func(_ uint64, w *kedrWrong) bool {
		if !cleared[w.Load] {
			told[w.Obtained.Stack], told[w.Released.Stack] = true, true
		}
		return cleared[w.Load]
	}); err != nil {
		return err
	}
	var slots []uint32
	if err := removeIf(s.shared["stacks"], func(id uint64, st *kedrStack) bool {
		gone := cleared[st.Load] && !told[id]
		if gone {
			slots = append(slots, st.Slot)
		}
		return gone
	}); err != nil {
		return err
	}
	if err := s.spareSlots(v, slots); err != nil {
		return err
	}
	return s.sweepObjects(v, cleared)
}

// sweepObjects removes objects of cleared loads as long as no target is loaded. One
// that is might obtain the same address anew between the look and the removal; the
// programs then remove such objects themselves, when they meet them (bpf/clear.h).
func (s *Set) sweepObjects(v *variables, cleared map[uint32]bool) error {
	count := v.loadCount()
	n := atomic.LoadUint32(count)
	for t := range uint32(MaxTargets) {
		if atomic.LoadUint32(v.loadedAs(t)) != 0 {
			return nil
		}
	}
	if s.inCells() {
		return s.sweepCells(v, cleared, n)
	}
	type dead struct {
		key   uint64
		probe uint16
	}
	var objects []dead
	err := each(s.shared["objects"], func(key uint64, o *kedrObject) {
		if cleared[o.Load] {
			objects = append(objects, dead{key, o.Probe})
		}
	})
	if err != nil {
		return err
	}
	for _, o := range objects {
		if atomic.LoadUint32(count) != n {
			return nil
		}
		err := s.shared["objects"].Delete(o.key)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("removing an object: %w", err)
		}
		if atomic.LoadUint32(count) != n {
			// A target came in this instant, and what was removed may be its own.
			atomic.AddUint64(v.lost(o.probe, lostBusy), 1)
			return nil
		}
		atomic.AddUint32(v.filter(o.key), ^uint32(0))
	}
	return nil
}

// sweepCells is the same where objects are in cells, from which one is removed only if it
// is still the one that was seen.
func (s *Set) sweepCells(v *variables, cleared map[uint32]bool, n uint32) error {
	c, err := s.mapCells()
	if err != nil {
		return err
	}
	defer c.unmap()
	c.each(v, func(key uint64, cell *kedrCell) {
		if !cleared[cell.Object.Load] || atomic.LoadUint32(v.loadCount()) != n {
			return
		}
		probe := cell.Object.Probe
		if !c.remove(v, key, cell) {
			return
		}
		if atomic.LoadUint32(v.loadCount()) != n {
			// A target came in this instant, and what was removed may be its own.
			atomic.AddUint64(v.lost(probe, lostBusy), 1)
		}
		atomic.AddUint32(v.filter(key), ^uint32(0))
	})
	return nil
}

// removeIf removes what f says so of from a hash map.
func removeIf[V any](m *ebpf.Map, f func(key uint64, v *V) bool) error {
	var keys []uint64
	err := each(m, func(key uint64, v *V) {
		if f(key, v) {
			keys = append(keys, key)
		}
	})
	for _, key := range keys {
		if err != nil {
			break
		}
		if err = m.Delete(key); errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("removing from %v: %w", m, err)
	}
	return nil
}

// wait returns when all programs have ended that run now: the kernel waits for them
// when a map in a map is replaced (kernel/bpf/syscall.c, maybe_wait_bpf_programs).
func wait() error {
	inner := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: inner})
	if err != nil {
		return fmt.Errorf("waiting for the programs: %w", err)
	}
	defer outer.Close()
	m, err := ebpf.NewMap(inner)
	if err != nil {
		return fmt.Errorf("waiting for the programs: %w", err)
	}
	defer m.Close()
	if err := outer.Put(uint32(0), m); err != nil {
		return fmt.Errorf("waiting for the programs: %w", err)
	}
	return nil
}

const (
	lostBusy   = 1  // LOST_OBJECTS_BUSY
	filterBits = 16 // FILTER_BITS
)
