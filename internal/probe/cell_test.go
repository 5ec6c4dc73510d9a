package probe

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// enter does what bpf/cell.h does; false: there is no room.
func (c *cells) enter(v *variables, key uint64) bool {
	home := c.home(hashOf(key))
	for n := range uint64(cellReach + 1) {
		cell := c.at(home, n)
		if cell.Key != 0 {
			continue
		}
		reach := uint32(0)
		for uint64(reach) < n {
			reach = 2*reach + 1
		}
		c.at(home, 0).Reach |= reach
		cell.Key, cell.Object.Address = key, key
		*v.filter(key)++
		*v.held()++
		return true
	}
	return false
}

// TestCells: all that is in the cells is found, once, wherever it had to go, and what was
// removed is not.
func TestCells(t *testing.T) {
	for _, test := range []struct{ cells, objects int }{
		{cellsLeast, 0}, {cellsLeast, 1}, {cellsLeast, 2730}, {cellsLeast, 3300}, {196608, 131072}, {100003, 60000}, {1 << 20, 5000},
	} {
		t.Run(fmt.Sprintf("%d of %d", test.objects, test.cells), func(t *testing.T) {
			c := &cells{make([]byte, test.cells*cellSize), uint64(test.cells)}
			v := &variables{make([]byte, 4<<filterBits+8), map[string]*ebpf.VariableSpec{
				"filter": {Offset: 0}, "held": {Offset: 4 << filterBits},
			}}
			r := rand.New(rand.NewPCG(1, uint64(test.objects)))
			want := make(map[uint64]bool)
			enter := func() {
				// Blocks of memory, some of them at one place, as those that are counted are.
				key := 0xffff888000000000 + r.Uint64N(1<<30)*64 + r.Uint64N(2)
				if want[key] {
					return
				}
				if !c.enter(v, key) {
					t.Fatalf("no room for the object number %d", len(want)+1)
				}
				want[key] = true
			}
			check := func() {
				t.Helper()
				got := make(map[uint64]int)
				c.each(v, func(key uint64, cell *kedrCell) {
					got[key]++
					if cell.Key != key || cell.Object.Address != key {
						t.Errorf("object %#x is %#x, %#x", key, cell.Key, cell.Object.Address)
					}
				})
				if len(got) != len(want) || int(*v.held()) != len(want) {
					t.Errorf("%d objects, %d held, want %d", len(got), *v.held(), len(want))
				}
				for key, n := range got {
					if n != 1 || !want[key] {
						t.Errorf("%#x: %d times", key, n)
					}
				}
			}
			for len(want) < test.objects {
				enter()
			}
			check()
			// Every other one goes, and as many come.
			keys := slices.Sorted(maps.Keys(want))
			c.each(v, func(key uint64, cell *kedrCell) {
				if at, _ := slices.BinarySearch(keys, key); at%2 == 0 {
					if !c.remove(v, key, cell) || c.remove(v, key, cell) {
						t.Errorf("removing %#x", key)
					}
					*v.filter(key)--
					delete(want, key)
				}
			})
			check()
			for len(want) < test.objects {
				enter()
			}
			check()
		})
	}
}
