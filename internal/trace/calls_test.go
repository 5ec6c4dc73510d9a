package trace

import "testing"

// TestStacks joins calls in threads, in an interrupt on top of one, and with halves that
// are missing.
func TestStacks(t *testing.T) {
	s := NewStacks()
	enter := func(e Event) *Invocation {
		e.What = Call
		in, _ := s.Enter(&e)
		return in
	}
	init := enter(Event{Time: 10, TID: 1, ID: 100})
	outer := enter(Event{Time: 20, TID: 1, ID: 90, Function: 1})
	inner := enter(Event{Time: 30, TID: 1, ID: 80, Function: 2})
	other := enter(Event{Time: 31, TID: 2, ID: 70, Function: 1})
	irq := enter(Event{Time: 32, TID: 1, Context: InHardirq, ID: 60, Function: 3})
	if outer.Depth != 1 || outer.Parent != init.Number || inner.Depth != 2 || inner.Parent != outer.Number || other.Depth != 0 || irq.Depth != 0 {
		t.Errorf("%+v %+v %+v %+v", outer, inner, other, irq)
	}
	if !init.Inner || !outer.Inner || inner.Inner {
		t.Error("what others were made in")
	}
	if got := s.Leave(&Event{Time: 40, ID: 80, Function: 2, Result: 5}); got != inner || got.Duration != 10 || got.Result != 5 {
		t.Errorf("%+v", got)
	}
	if got := s.Leave(&Event{Time: 41, ID: 80, Function: 2}); got != nil {
		t.Errorf("returned twice: %+v", got)
	}
	if got := s.Leave(&Event{Time: 42, ID: 70, Function: 9}); got != nil {
		t.Errorf("another function: %+v", got)
	}
	// The same frame again: the first has returned unseen.
	again, lost := s.Enter(&Event{What: Call, Time: 50, TID: 1, ID: 90, Function: 1})
	if lost != outer || again.Depth != 1 || again.Parent != init.Number {
		t.Errorf("%+v, lost %+v", again, lost)
	}
	jump, _ := s.Enter(&Event{What: Call, Time: 51, TID: 1, Jump: true})
	if jump.Depth != 2 || jump.Returned {
		t.Errorf("%+v", jump)
	}
	whole, _ := s.Enter(&Event{What: Whole, Time: 52, TID: 2, Duration: 7, Result: 3})
	if !whole.Returned || whole.Duration != 7 || whole.Depth != 1 {
		t.Errorf("%+v", whole)
	}
	open := s.Sorted()
	if s.Open() != 4 || open[0] != init || open[3] != again {
		t.Errorf("%d open", s.Open())
	}
	// The idle tasks are told apart by CPU.
	a := enter(Event{Time: 60, CPU: 0, ID: 1000})
	b := enter(Event{Time: 61, CPU: 1, ID: 1001})
	if a.Depth != 0 || b.Depth != 0 {
		t.Error("the idle tasks share a stack")
	}
}
