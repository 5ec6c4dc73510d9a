package machine

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// TestSilence: the time in line is not counted, that of the thread that waited longest and
// only since the last sign; but there is an end to that, too.
func TestSilence(t *testing.T) {
	line := map[int]time.Duration{1: 500 * time.Second, 2: 0}
	s := silenceWatch{limit: 60 * time.Second, most: 300 * time.Second, queued: func() map[int]time.Duration {
		now := make(map[int]time.Duration)
		for thread, d := range line {
			now[thread] = d
		}
		return now
	}}
	for _, step := range []struct {
		now, sign int // in s
		one, two  int // s more in line
		want      bool
	}{
		{now: 1}, {now: 60},
		// From 60 s on one thread waits most of the time.
		{now: 70, one: 20}, {now: 79, one: 0}, {now: 80},
		{now: 81, want: true},
		{now: 81, one: 10, two: 25},
		{now: 91, want: true},
		// A sign: it all begins again.
		{now: 92, sign: 92}, {now: 152, sign: 92}, {now: 153, sign: 92, want: true},
		{now: 153, sign: 153}, {now: 450, sign: 153, one: 5, two: 300}, {now: 453, sign: 153}, {now: 454, sign: 153, want: true},
	} {
		line[1] += time.Duration(step.one) * time.Second
		line[2] += time.Duration(step.two) * time.Second
		if got := s.over(time.Duration(step.now)*time.Second, time.Duration(step.sign)*time.Second); got != step.want {
			t.Errorf("%+v: %v", step, got)
		}
	}
}

// TestQueued: more threads with work than CPUs stand in line.
func TestQueued(t *testing.T) {
	before := queued(os.Getpid())
	if len(before) == 0 {
		t.Fatal("this process has no threads")
	}
	end := time.Now().Add(200 * time.Millisecond)
	done := make(chan bool)
	n := 2*runtime.NumCPU() + 1
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
	for range n {
		go func() {
			for time.Now().Before(end) {
			}
			done <- true
		}()
	}
	for range n {
		<-done
	}
	var most time.Duration
	for thread, d := range queued(os.Getpid()) {
		most = max(most, d-before[thread])
	}
	if most < time.Millisecond || most > time.Minute {
		t.Errorf("%v in line", most)
	}
	if gone := queued(1 << 30); len(gone) != 0 {
		t.Errorf("a process that is not there: %v", gone)
	}
}
