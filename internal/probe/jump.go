package probe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"kedr/internal/plan"
)

// The probes at the targets' own jumps are kprobes, made in tracefs: that alone takes
// the name of a module that is not loaded yet, and puts the probe in when it comes
// (kernel/trace/trace_kprobe.c, trace_kprobe_module_callback).

// jumpGroup names the kprobes of a session: a detached one is the only one, others
// go with their process.
func jumpGroup(detached bool) string {
	if detached {
		return detachedJumps
	}
	return jumpPrefix + strconv.Itoa(os.Getpid())
}

const (
	jumpPrefix    = "kedr_"
	detachedJumps = "kedr_session"
	tracefs       = "/sys/kernel/tracing"
)

// WithTracefs gives f the path of tracefs, which it mounts for that time where
// nobody has.
func WithTracefs(f func(dir string) error) error {
	var st unix.Statfs_t
	if err := unix.Statfs(tracefs, &st); err != nil {
		return fmt.Errorf("%s: %w: this kernel has no tracefs (CONFIG_FTRACE)", tracefs, err)
	}
	if st.Type == unix.TRACEFS_MAGIC {
		return f(tracefs)
	}
	if err := unix.Mount("tracefs", tracefs, "tracefs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mounting tracefs at %s: %w", tracefs, err)
	}
	err := f(tracefs)
	return errors.Join(err, unix.Unmount(tracefs, unix.MNT_DETACH))
}

func traceCommand(dir, command string) error {
	f, err := os.OpenFile(filepath.Join(dir, "kprobe_events"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(command + "\n")
	return errors.Join(err, f.Close())
}

// attachJumps puts a kprobe on each of the plan's jumps. One that can't be watched is
// added to the plan's Unwatched if something is obtained by it.
func (s *Set) attachJumps(id uint32, p *plan.Plan, detached bool) error {
	if len(p.Jumps) == 0 {
		return nil
	}
	s.jumps = jumpGroup(detached)
	fail := func(jumps []plan.Jump, err error) {
		for _, j := range jumps {
			if j.Role == plan.Obtain {
				p.Unwatched = append(p.Unwatched, j.Unseen(brief(err)))
			}
		}
	}
	err := WithTracefs(func(dir string) error {
		if err := removeStale(dir); err != nil {
			return err
		}
		for t := range p.Targets {
			var mine []plan.Jump
			for _, j := range p.Jumps {
				if j.Target == t {
					mine = append(mine, j)
				}
			}
			if len(mine) == 0 {
				continue
			}
			prog, err := s.load("note_jump", s.constants(kedrProbeSpec{Id: id, Address: uint8(t)}), "", nil)
			if err != nil {
				fail(mine, err)
				continue
			}
			for n, j := range mine {
				if err := s.attachJump(dir, id, n, &j, p.Targets[t].Name, prog); err != nil {
					fail(mine[n:n+1], err)
				}
			}
			prog.Close()
		}
		return nil
	})
	if err != nil {
		fail(p.Jumps, err)
	}
	return nil
}

func (s *Set) attachJump(dir string, id uint32, n int, j *plan.Jump, module string, prog *ebpf.Program) error {
	if j.Anchor == "" {
		return errors.New("no function of this section has a name of its own")
	}
	if !j.Traceable {
		return errors.New("the kernel can't trace this function (notrace, or built without -pg)")
	}
	where := fmt.Sprintf("%s:%s+%#x", module, j.Anchor, j.Offset)
	a, err := s.attachKprobe(dir, fmt.Sprintf("t%d_%d", j.Target, n), "p", where, prog)
	if err != nil {
		return err
	}
	a.Symbol, a.id, a.jump = j.Function, id, true
	s.attached = append(s.attached, a)
	return nil
}

// attachKprobe makes a kprobe ("p") or a kretprobe ("r") in tracefs, and attaches a
// program to it.
func (s *Set) attachKprobe(dir, event, kind, where string, prog *ebpf.Program) (a Attached, err error) {
	if err := traceCommand(dir, fmt.Sprintf("%s:%s/%s %s", kind, s.jumps, event, where)); err != nil {
		return a, fmt.Errorf("placing a kprobe at %s: %w", where, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "events", s.jumps, event, "id"))
	if err != nil {
		return a, fmt.Errorf("placing a kprobe at %s: %w", where, err)
	}
	number, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return a, fmt.Errorf("placing a kprobe at %s: %w", where, err)
	}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_TRACEPOINT, Config: number,
		Sample: 1, Wakeup: 1, Sample_type: unix.PERF_SAMPLE_RAW,
	}
	// The processor does not matter: a program runs wherever the event is met.
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return a, permission(fmt.Errorf("opening the kprobe at %s: %w", where, err))
	}
	f := os.NewFile(uintptr(fd), where)
	// Links of such events can be pinned; they are new in 5.15.
	a.link, err = link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: prog, Attach: ebpf.AttachPerfEvent})
	if err == nil {
		f.Close()
		return a, nil
	}
	a.link = nil
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		if s.jumps == detachedJumps {
			f.Close()
			return a, errors.New("before Linux 5.15 a detached session can't keep a kprobe")
		}
		a.event = f
		if err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD()); err == nil {
			err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0)
		}
	}
	if err != nil {
		f.Close()
		return a, permission(fmt.Errorf("attaching to the kprobe at %s: %w", where, err))
	}
	return a, nil
}

// jumpMisses counts how often the kernel did not run a kprobe of the session.
func (s *Set) jumpMisses() (uint64, error) {
	var missed uint64
	if s.jumps == "" {
		return 0, nil
	}
	err := WithTracefs(func(dir string) error {
		b, err := os.ReadFile(filepath.Join(dir, "kprobe_profile"))
		if err != nil {
			return err
		}
		missed, err = parseProfile(b)
		return err
	})
	return missed, err
}

// parseProfile adds up the last column of our events: "name hits misses"
// (kernel/trace/trace_kprobe.c, probes_profile_seq_show). Names of events, not of
// groups: only kedr calls them so.
func parseProfile(b []byte) (uint64, error) {
	var missed uint64
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		var t, n int
		if len(f) != 3 {
			continue
		}
		if _, err := fmt.Sscanf(f[0], "t%d_%d", &t, &n); err != nil {
			continue
		}
		m, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("kprobe_profile: %q: %w", sc.Text(), err)
		}
		missed += m
	}
	return missed, sc.Err()
}

// removeJumps removes the kprobes of a group. An event that was detached just now is
// busy for a moment: its release is the kernel's deferred work, which takes its time in a
// real-time kernel.
func removeJumps(dir, group string) error {
	events, err := os.ReadDir(filepath.Join(dir, "events", group))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range events {
		if !e.IsDir() {
			continue
		}
		if err := removeKprobe(dir, group, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func removeKprobe(dir, group, event string) error {
	for pause := time.Millisecond; ; pause *= 2 {
		err := traceCommand(dir, "-:"+group+"/"+event)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || pause > 4*time.Second {
			return fmt.Errorf("removing the kprobe %s/%s: %w", group, event, err)
		}
		time.Sleep(pause)
	}
}

// RemoveJumps removes the kprobes of a detached session.
func RemoveJumps() error {
	if !haveJumps(detachedJumps) {
		return nil
	}
	return WithTracefs(func(dir string) error { return removeJumps(dir, detachedJumps) })
}

// haveJumps spares mounting tracefs where nothing of ours can be in it. Where it is
// not mounted it may be.
func haveJumps(group string) bool {
	var st unix.Statfs_t
	if unix.Statfs(tracefs, &st) != nil || st.Type != unix.TRACEFS_MAGIC {
		return true
	}
	_, err := os.Stat(filepath.Join(tracefs, "events", group))
	return err == nil
}

// removeStale removes kprobes of processes that were killed.
func removeStale(dir string) error {
	groups, err := filepath.Glob(filepath.Join(dir, "events", jumpPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, g := range groups {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(g), jumpPrefix))
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		errs = append(errs, removeJumps(dir, filepath.Base(g)))
	}
	return errors.Join(errs...)
}
