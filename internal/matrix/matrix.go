// Package matrix is one module on several kernels: what is built for each and run there,
// in which order and how many at a time, and the table that it all ends in.
package matrix

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kedr/internal/leak"
)

// Outcome is how it went on one kernel. The greater is the worse one: what a kernel that
// crashed would have leaked is not known, nor what one would on which nothing has run;
// and a leak that was found where events were lost is no more certain than its absence.
type Outcome int

// The outcomes, from best to worst.
const (
	Clean       Outcome = iota // nothing was found
	Found                      // possible leaks, or wrong releases
	Incomplete                 // events were lost, or a function was not watched
	Failed                     // it could not run
	NotBuilt                   // the module could not be built
	Interrupted                // the user ended it first
	Hung                       // the machine came to a stop
	Crashed                    // the kernel crashed
)

var outcomes = [...]string{"clean", "findings", "incomplete", "could not run", "build failed", "interrupted", "hung", "crashed"}

func (o Outcome) String() string { return outcomes[o] }

// MarshalText writes the outcome in words.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (o *Outcome) UnmarshalText(b []byte) error {
	for i, name := range outcomes {
		if name == string(b) {
			*o = Outcome(i)
			return nil
		}
	}
	return fmt.Errorf("no outcome %q", b)
}

// State is what is being done for a kernel.
type State int

// The states that Run tells of, in their order.
const (
	Building State = iota
	Ready          // built; others have the machines
	Running
	Done
)

// Result is what came of one kernel.
type Result struct {
	Outcome Outcome
	Report  *leak.Report  // nil: there is none
	Err     error         // why it could not be built or run, or crashed
	Remark  string        // what else there is to say of it
	Took    time.Duration // to build and to run; not what it waited for others
}

// Steps are what is done for each kernel. What they return has an Outcome of their own
// choice; an error alone is Failed.
type Steps interface {
	// Build gets the kernel and builds the module. It is called for one kernel at a
	// time, in order: package lists are shared, and make takes all CPUs anyway.
	Build(ctx context.Context, kernel string) Result
	// Exercise runs what was built, in a machine; for several kernels side by side.
	Exercise(ctx context.Context, kernel string) Result
}

// StopError is an error that makes the other kernels pointless, too.
type StopError struct{ Err error }

func (e *StopError) Error() string { return e.Err.Error() }

func (e *StopError) Unwrap() error { return e.Err }

// Run does the steps for each kernel, with that many machines at a time, while the next
// module is being built. tell is called at each change, by one goroutine at a time; with
// Done it has the result. When ctx ends, what is not done yet is Interrupted. The error
// is a step's *StopError.
func Run(ctx context.Context, kernels []string, steps Steps, machines int, tell func(kernel string, s State, r *Result)) ([]Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]Result, len(kernels))
	var mu sync.Mutex
	change := func(i int, s State) {
		mu.Lock()
		defer mu.Unlock()
		tell(kernels[i], s, &results[i])
	}
	step := func(i int, do func(context.Context, string) Result) bool {
		r := &results[i]
		if ctx.Err() == nil {
			start := time.Now()
			took := r.Took
			*r = do(ctx, kernels[i])
			r.Took = took + time.Since(start)
		}
		var stop *StopError
		if errors.As(r.Err, &stop) {
			cancel(stop)
		}
		if r.Err == nil && ctx.Err() == nil {
			return true
		}
		switch {
		// What was over before the end came stays as it is.
		case ctx.Err() != nil && (r.Err == nil && r.Report == nil || errors.Is(r.Err, context.Canceled)):
			r.Outcome, r.Err = Interrupted, context.Cause(ctx)
		case r.Err != nil && r.Outcome < Failed:
			r.Outcome = Failed
		}
		return false
	}
	// The machines are given out in the order of the kernels.
	ready := make(chan int, len(kernels))
	var wg sync.WaitGroup
	for range max(1, machines) {
		wg.Go(func() {
			for i := range ready {
				if ctx.Err() == nil {
					change(i, Running)
				}
				step(i, steps.Exercise)
				change(i, Done)
			}
		})
	}
	for i := range kernels {
		change(i, Building)
		if !step(i, steps.Build) {
			change(i, Done)
			continue
		}
		change(i, Ready)
		ready <- i
	}
	close(ready)
	wg.Wait()
	var stop *StopError
	errors.As(context.Cause(ctx), &stop)
	if stop != nil {
		return results, stop
	}
	return results, nil
}
