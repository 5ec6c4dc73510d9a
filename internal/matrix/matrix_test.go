package matrix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kedr/internal/leak"
)

// fake is a Steps that keeps book of what goes on at the same time.
type fake struct {
	build, exercise func(ctx context.Context, kernel string) Result

	mu                             sync.Mutex
	building, running, most, built int
	order                          []string
}

func (f *fake) Build(ctx context.Context, kernel string) Result {
	f.mu.Lock()
	f.building++
	if f.building > 1 {
		panic("two builds at a time")
	}
	f.order = append(f.order, kernel)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.building--
		f.built++
		f.mu.Unlock()
	}()
	if f.build != nil {
		return f.build(ctx, kernel)
	}
	return Result{}
}

func (f *fake) Exercise(ctx context.Context, kernel string) Result {
	f.mu.Lock()
	f.running++
	f.most = max(f.most, f.running)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.running--
		f.mu.Unlock()
	}()
	return f.exercise(ctx, kernel)
}

func (f *fake) count() (running, built int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running, f.built
}

var four = []string{"5.10", "6.1", "6.12", "7.3"}

func silent(string, State, *Result) {}

func report() *leak.Report { return &leak.Report{} }

// As many machines as asked for are at work together, never more, and all modules are
// built meanwhile.
func TestSideBySide(t *testing.T) {
	for _, machines := range []int{0, 1, 2, 3, 9} {
		want := min(max(machines, 1), len(four))
		arrived, leave := make(chan bool), make(chan bool)
		f := &fake{exercise: func(context.Context, string) Result {
			arrived <- true
			<-leave
			return Result{Report: report()}
		}}
		done := make(chan []Result)
		go func() {
			results, err := Run(t.Context(), four, f, machines, silent)
			if err != nil {
				t.Error(err)
			}
			done <- results
		}()
		for range want {
			<-arrived
		}
		for {
			if _, built := f.count(); built == len(four) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if running, _ := f.count(); running != want {
			t.Errorf("%d machines: %d at work", machines, running)
		}
		go func() {
			for range len(four) - want {
				<-arrived
			}
		}()
		close(leave)
		results := <-done
		if f.most != want {
			t.Errorf("%d machines: %d at a time", machines, f.most)
		}
		if !slices.Equal(f.order, four) {
			t.Errorf("built in the order %v", f.order)
		}
		for i, r := range results {
			if r.Outcome != Clean || r.Report == nil || r.Err != nil {
				t.Errorf("%s: %+v", four[i], r)
			}
		}
	}
}

// Each kernel's end is its own: nothing of what happens on one keeps the others.
func TestOutcomes(t *testing.T) {
	f := &fake{
		build: func(_ context.Context, kernel string) Result {
			switch kernel {
			case "no kernel":
				return Result{Err: errors.New("no such kernel")}
			case "no build":
				return Result{Outcome: NotBuilt, Err: errors.New("a.c:1: error")}
			}
			return Result{}
		},
		exercise: func(_ context.Context, kernel string) Result {
			switch kernel {
			case "found":
				return Result{Outcome: Found, Report: report()}
			case "crashed":
				return Result{Outcome: Crashed, Err: errors.New("the kernel crashed")}
			case "not loaded":
				return Result{Report: report(), Err: errors.New("invalid argument")}
			}
			return Result{Report: report()}
		},
	}
	want := map[string]Outcome{"no kernel": Failed, "no build": NotBuilt, "clean": Clean, "found": Found, "crashed": Crashed, "not loaded": Failed}
	var kernels []string
	for k := range want {
		kernels = append(kernels, k)
	}
	states := make(map[string][]State)
	results, err := Run(t.Context(), kernels, f, 2, func(kernel string, s State, r *Result) {
		states[kernel] = append(states[kernel], s)
		if s == Done && r.Outcome != want[kernel] {
			t.Errorf("%s is done with %v", kernel, r.Outcome)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range kernels {
		if results[i].Outcome != want[k] {
			t.Errorf("%s: %v, want %v", k, results[i].Outcome, want[k])
		}
		path := []State{Building, Ready, Running, Done}
		if strings.HasPrefix(k, "no ") {
			path = []State{Building, Done}
		}
		if !slices.Equal(states[k], path) {
			t.Errorf("%s: states %v, want %v", k, states[k], path)
		}
	}
}

// An interrupt ends what is at work, lets nothing begin, and keeps what was there.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := make(chan bool)
	f := &fake{
		build: func(ctx context.Context, kernel string) Result {
			if kernel == "7.3" {
				<-first
				cancel()
				<-ctx.Done()
				return Result{Err: fmt.Errorf("make: %w", ctx.Err())}
			}
			return Result{}
		},
	}
	f.exercise = func(ctx context.Context, kernel string) Result {
		if kernel == "5.10" {
			close(first)
			return Result{Outcome: Found, Report: report()}
		}
		<-ctx.Done()
		return Result{Err: ctx.Err()}
	}
	kernels := append(slices.Clone(four), "8.0")
	results, err := Run(ctx, kernels, f, 2, silent)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		want := Interrupted
		if kernels[i] == "5.10" {
			want = Found
		}
		if r.Outcome != want || want == Interrupted && !errors.Is(r.Err, context.Canceled) {
			t.Errorf("%s: %+v", kernels[i], r)
		}
	}
	if !slices.Equal(f.order, four) {
		t.Errorf("built: %v", f.order)
	}
	if running, _ := f.count(); running != 0 {
		t.Errorf("%d machines are left", running)
	}
}

// What is wrong for all kernels is told once, at once.
func TestStop(t *testing.T) {
	wrong := errors.New("which module?")
	f := &fake{
		build: func(_ context.Context, kernel string) Result {
			if kernel == "6.1" {
				return Result{Err: &StopError{wrong}}
			}
			return Result{}
		},
		exercise: func(ctx context.Context, _ string) Result {
			<-ctx.Done()
			return Result{Err: ctx.Err()}
		},
	}
	_, err := Run(t.Context(), four, f, 2, silent)
	if !errors.Is(err, wrong) {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(f.order, four[:2]) {
		t.Errorf("built: %v", f.order)
	}
}
