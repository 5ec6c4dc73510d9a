package trace

import (
	"cmp"
	"maps"
	"slices"
)

// Invocation is one call, from its beginning to its return.
type Invocation struct {
	Number   uint64 // of its kind in the trace, from 1
	Parent   uint64 // Number of the call that it was made in; 0: none
	Depth    int    // how many calls it was made in
	Begin    Event  // Call or Whole
	Duration uint64 // ns
	Result   uint64
	Returned bool
	Captured []Captured // of the result
	Inner    bool       // others were made in it

	// Held is for who shows it.
	Shown bool
}

// Stacks joins calls and returns. Calls nest in a thread, and an interrupt has a stack of
// its own; each event costs the same, however many have gone by.
type Stacks struct {
	open    map[uint64]*Invocation
	threads map[thread][]*Invocation
	count   uint64
}

// thread is what calls nest in. The idle tasks are all number 0.
type thread struct {
	tid, cpu uint32
	context  uint8
}

// NewStacks returns what joins a trace's calls.
func NewStacks() *Stacks {
	return &Stacks{open: make(map[uint64]*Invocation), threads: make(map[thread][]*Invocation)}
}

func threadOf(e *Event) thread {
	t := thread{tid: e.TID, context: e.Context}
	if e.TID == 0 || e.Context != InTask {
		t.cpu = e.CPU + 1
	}
	return t
}

// Enter takes a Call or a Whole. What had not returned though it must have, because the
// same frame is used again, ends unreturned: lost is then not nil.
func (s *Stacks) Enter(e *Event) (in *Invocation, lost *Invocation) {
	s.count++
	in = &Invocation{Number: s.count, Begin: *e}
	t := threadOf(e)
	if e.What == Whole || e.Jump {
		in.Duration, in.Result, in.Returned = e.Duration, e.Result, e.What == Whole
		in.under(s.threads[t])
		return in, nil
	}
	if old := s.open[e.ID]; old != nil {
		lost = old
		s.drop(old)
	}
	in.under(s.threads[t])
	s.open[e.ID] = in
	s.threads[t] = append(s.threads[t], in)
	return in, lost
}

func (in *Invocation) under(stack []*Invocation) {
	if n := len(stack); n > 0 {
		in.Parent, in.Depth = stack[n-1].Number, stack[n-1].Depth+1
		stack[n-1].Inner = true
	}
}

// Leave takes a Return; nil: of a call that was not seen to begin.
func (s *Stacks) Leave(e *Event) *Invocation {
	in := s.open[e.ID]
	if in == nil || in.Begin.Function != e.Function {
		return nil
	}
	s.drop(in)
	in.Returned, in.Result, in.Captured = true, e.Result, e.Captured
	if e.Time > in.Begin.Time {
		in.Duration = e.Time - in.Begin.Time
	}
	return in
}

// drop takes a call, and what was left open inside of it, off its stack.
func (s *Stacks) drop(in *Invocation) {
	delete(s.open, in.Begin.ID)
	t := threadOf(&in.Begin)
	stack := s.threads[t]
	for i := len(stack) - 1; i >= 0; i-- {
		if stack[i] == in {
			s.threads[t] = append(stack[:i], stack[i+1:]...)
			break
		}
	}
	if len(s.threads[t]) == 0 {
		delete(s.threads, t)
	}
}

// Open counts the calls that have not returned.
func (s *Stacks) Open() int { return len(s.open) }

// Sorted lists the calls that have not returned, oldest first.
func (s *Stacks) Sorted() []*Invocation {
	return slices.SortedFunc(maps.Values(s.open), func(a, b *Invocation) int { return cmp.Compare(a.Number, b.Number) })
}
