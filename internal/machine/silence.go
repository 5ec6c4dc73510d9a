package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// silenceWatch tells when a machine has given no sign of life for too long. Time in which
// the emulator stood in line for a CPU is not the machine's: on a host with more to do
// than CPUs to do it, that can be most of the time.
type silenceWatch struct {
	limit  time.Duration                // without that time
	most   time.Duration                // all in all
	queued func() map[int]time.Duration // how long each of the emulator's threads stood in line so far

	sign time.Duration // the last one
	then map[int]time.Duration
}

// over is asked again and again: now, and the machine's last sign, are since its start.
func (s *silenceWatch) over(now, sign time.Duration) bool {
	if s.then == nil || sign != s.sign {
		s.sign, s.then = sign, s.queued()
	}
	silent := now - sign
	if silent <= s.limit || silent > s.most {
		return silent > s.most
	}
	// What the threads do needs all of them: it waits as long as the one that waits longest.
	var longest time.Duration
	for thread, q := range s.queued() {
		longest = max(longest, q-s.then[thread])
	}
	return silent-longest > s.limit
}

// queued reads how long each thread of a process stood in line for a CPU: the second number
// of /proc/PID/task/TID/schedstat, in ns, of kernels with CONFIG_SCHED_INFO
// (Documentation/scheduler/sched-stats.rst). Where that can't be read, nobody waited.
func queued(pid int) map[int]time.Duration {
	threads := make(map[int]time.Duration)
	dir := fmt.Sprintf("/proc/%d/task", pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name(), "schedstat"))
		if err != nil {
			continue // it has ended
		}
		var ran, waited uint64
		if n, _ := fmt.Sscan(string(text), &ran, &waited); n == 2 {
			threads[tid] = time.Duration(waited)
		}
	}
	return threads
}
