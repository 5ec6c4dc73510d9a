package trace

import (
	"slices"
	"testing"
)

// TestStacks joins calls in threads, in an interrupt on top of one, and with halves that
// are missing.
func TestStacks(t *testing.T) {
	s := NewStacks(&Header{Functions: []Function{{Name: "init"}, {Name: "f"}, {Name: "g"}, {Name: "tick"}, {Name: "kthread_exit"}}})
	var ended []*Invocation
	enter := func(e Event) (in *Invocation) {
		e.What = Call
		in, ended = s.Take(&e)
		return in
	}
	leave := func(e Event) []*Invocation {
		e.What = Return
		_, ended = s.Take(&e)
		return ended
	}
	has := func(what string, want ...*Invocation) {
		t.Helper()
		if !slices.Equal(ended, want) {
			t.Errorf("%s: %d ended, want %d", what, len(ended), len(want))
		}
	}
	init := enter(Event{Time: 10, TID: 1, ID: 100})
	outer := enter(Event{Time: 20, TID: 1, ID: 90, Function: 1})
	inner := enter(Event{Time: 30, TID: 1, ID: 80, Function: 2})
	other := enter(Event{Time: 31, TID: 2, ID: 170, Function: 1})
	irq := enter(Event{Time: 32, TID: 1, Context: InHardirq, ID: 60, Function: 3})
	if outer.Depth != 1 || outer.Parent != init.Number || inner.Depth != 2 || inner.Parent != outer.Number || other.Depth != 0 || irq.Depth != 0 {
		t.Errorf("%+v %+v %+v %+v", outer, inner, other, irq)
	}
	if !init.Inner || !outer.Inner || inner.Inner {
		t.Error("what others were made in")
	}
	leave(Event{Time: 40, ID: 80, Function: 2, Result: 5})
	if has("a return", inner); inner.Duration != 10 || inner.Result != 5 || inner.Lost {
		t.Errorf("%+v", inner)
	}
	leave(Event{Time: 41, ID: 80, Function: 2})
	has("returned twice")
	leave(Event{Time: 42, ID: 170, Function: 9})
	has("another function")

	// The same frame again: the first has returned unseen.
	again := enter(Event{Time: 50, TID: 1, ID: 90, Function: 1})
	if has("its frame again", outer); !outer.Lost || again.Depth != 1 || again.Parent != init.Number {
		t.Errorf("%+v, lost %+v", again, outer)
	}
	// A frame above it.
	above := enter(Event{Time: 51, TID: 1, ID: 95, Function: 2})
	if has("a frame above", again); !again.Lost || above.Parent != init.Number {
		t.Errorf("%+v, lost %+v", above, again)
	}
	jump := enter(Event{Time: 51, TID: 1, Jump: true})
	if has("a jump", jump); jump.Depth != 2 || jump.Returned {
		t.Errorf("%+v", jump)
	}
	var whole *Invocation
	whole, ended = s.Take(&Event{What: Whole, Time: 52, TID: 2, Duration: 7, Result: 3})
	if has("a whole", whole); !whole.Returned || whole.Duration != 7 || whole.Depth != 1 {
		t.Errorf("%+v", whole)
	}
	// The outer one returns, and so has what was called in it.
	leave(Event{Time: 53, ID: 100, Function: 0})
	if has("a return from outside", above, init); !above.Lost || init.Lost || !init.Returned {
		t.Errorf("%+v, %+v", above, init)
	}
	open := s.Sorted()
	if s.Open() != 2 || open[0] != other || open[1] != irq {
		t.Errorf("%d open", s.Open())
	}
	// The idle tasks are told apart by CPU.
	a := enter(Event{Time: 60, CPU: 0, ID: 1000})
	b := enter(Event{Time: 61, CPU: 1, ID: 1001})
	if a.Depth != 0 || b.Depth != 0 {
		t.Error("the idle tasks share a stack")
	}
}

// TestStacksUnload: nothing returns to a target that has gone, but a thread may have ended
// in it.
func TestStacksUnload(t *testing.T) {
	s := NewStacks(&Header{Functions: []Function{{Name: "work"}, {Name: "f"}, {Name: "kthread_exit"}}})
	enter := func(e Event) *Invocation {
		e.What = Call
		in, ended := s.Take(&e)
		if len(ended) > 0 {
			t.Errorf("%+v ended %d", e, len(ended))
		}
		return in
	}
	work := enter(Event{TID: 1, ID: 100})
	exit := enter(Event{TID: 1, ID: 90, Function: 2})
	tick := enter(Event{TID: 2, ID: 200, Context: InHardirq, Function: 1})
	enter(Event{TID: 3, ID: 300, Function: 1, Target: 1})
	_, ended := s.Take(&Event{What: Unloaded})
	if !slices.Equal(ended, []*Invocation{tick}) || !tick.Lost || s.Open() != 3 {
		t.Errorf("%d ended, %d open", len(ended), s.Open())
	}
	// Another thread has got the stack of the one that ended.
	_, ended = s.Take(&Event{What: Call, TID: 4, ID: 100})
	if !slices.Equal(ended, []*Invocation{work}) || work.Lost {
		t.Errorf("%d ended: %+v", len(ended), work)
	}
	_, ended = s.Take(&Event{What: Call, TID: 4, ID: 90, Function: 1})
	if !slices.Equal(ended, []*Invocation{exit}) || exit.Lost {
		t.Errorf("%d ended: %+v", len(ended), exit)
	}
}
