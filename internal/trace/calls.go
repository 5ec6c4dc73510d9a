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
	Lost     bool       // it has returned, and that was not seen
	Captured []Captured // of the result
	Inner    bool       // others were made in it

	// Shown is for who shows it.
	Shown bool
}

// Stacks joins calls and returns. Calls nest in a thread, and an interrupt has a stack of
// its own; each event costs the same, however many have gone by.
type Stacks struct {
	header  *Header
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
func NewStacks(h *Header) *Stacks {
	return &Stacks{header: h, open: make(map[uint64]*Invocation), threads: make(map[thread][]*Invocation)}
}

func threadOf(e *Event) thread {
	t := thread{tid: e.TID, context: e.Context}
	if e.TID == 0 || e.Context != InTask {
		t.cpu = e.CPU + 1
	}
	return t
}

// Take takes the next event of the trace, and gives the call that it begins, and those
// that have ended with it, of which nothing more will come: the one that it returns from
// last, before that those whose return was not seen, though it has been by now.
func (s *Stacks) Take(e *Event) (begun *Invocation, ended []*Invocation) {
	switch e.What {
	case Call, Whole:
		return s.enter(e)
	case Return:
		return nil, s.leave(e)
	case Unloaded:
		return nil, s.unload(e.Target)
	}
	return nil, nil
}

func (s *Stacks) enter(e *Event) (in *Invocation, ended []*Invocation) {
	s.count++
	in = &Invocation{Number: s.count, Begin: *e}
	t := threadOf(e)
	if e.What == Whole || e.Jump {
		in.Duration, in.Result, in.Returned = e.Duration, e.Result, e.What == Whole
		in.under(s.threads[t])
		return in, append(ended, in)
	}
	// The stack grows downwards: a frame that lies no higher than the new one is in nobody's
	// use any more.
	stack := s.threads[t]
	for n := len(stack); n > 0 && stack[n-1].Begin.ID <= e.ID; n-- {
		ended = s.lose(stack[n-1], ended)
	}
	if old := s.open[e.ID]; old != nil {
		// Of a thread that has ended, for example.
		ended = s.lose(old, ended)
	}
	in.under(s.threads[t])
	s.open[e.ID] = in
	s.threads[t] = append(s.threads[t], in)
	return in, ended
}

func (in *Invocation) under(stack []*Invocation) {
	if n := len(stack); n > 0 {
		in.Parent, in.Depth = stack[n-1].Number, stack[n-1].Depth+1
		stack[n-1].Inner = true
	}
}

// leave gives nothing for a call that was not seen to begin.
func (s *Stacks) leave(e *Event) (ended []*Invocation) {
	in := s.open[e.ID]
	if in == nil || in.Begin.Function != e.Function {
		return nil
	}
	t := threadOf(&in.Begin)
	for n := len(s.threads[t]); n > 0 && s.threads[t][n-1] != in; n-- {
		ended = s.lose(s.threads[t][n-1], ended)
	}
	s.drop(in)
	in.Returned, in.Result, in.Captured = true, e.Result, e.Captured
	if e.Time > in.Begin.Time {
		in.Duration = e.Time - in.Begin.Time
	}
	return append(ended, in)
}

// unload ends the calls of a target that has gone. Nothing returns to it any more.
func (s *Stacks) unload(target int) (ended []*Invocation) {
	for _, in := range s.Sorted() {
		if in.Begin.Target == target && !s.died(in) {
			ended = s.lose(in, ended)
		}
	}
	return ended
}

// lose ends a call that has not been seen to return.
func (s *Stacks) lose(in *Invocation, ended []*Invocation) []*Invocation {
	in.Lost = !s.died(in)
	s.drop(in)
	return append(ended, in)
}

// died says whether a call never returns, because the thread has ended in it.
func (s *Stacks) died(in *Invocation) bool {
	stack := s.threads[threadOf(&in.Begin)]
	for i := len(stack) - 1; i >= 0; i-- {
		if s.never(stack[i].Begin.Function) {
			return true
		}
		if stack[i] == in {
			break
		}
	}
	return false
}

func (s *Stacks) never(function int) bool {
	return s.header != nil && function < len(s.header.Functions) && NeverReturns(s.header.Functions[function].Name)
}

// NeverReturns says whether a kernel function ends the thread that calls it
// (tools/objtool/noreturns.h of Linux 6.12, and what the functions were called before).
func NeverReturns(function string) bool {
	switch function {
	case "do_exit", "do_group_exit", "make_task_dead", "kthread_exit",
		"kthread_complete_and_exit", "complete_and_exit",
		"__module_put_and_kthread_exit", "__module_put_and_exit":
		return true
	}
	return false
}

// drop takes a call off its stack.
func (s *Stacks) drop(in *Invocation) {
	if s.open[in.Begin.ID] == in {
		delete(s.open, in.Begin.ID)
	}
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
