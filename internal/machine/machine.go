package machine

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kedr/internal/distro"
)

// Config says what machine to start and what to run in it.
type Config struct {
	Kernel   distro.Kernel
	HostRoot bool     // the command is one of the host's
	ArchRoot string   // directory of programs for the kernel, where the host's don't run there
	Files    []File   // further files in the machine, without HostRoot
	Modules  []string // modules of the kernel to load first, by name

	Argv []string // the command; Self is this program
	Env  []string
	Dir  string
	// Result takes what the command writes to a descriptor that ResultEnv names to it;
	// nil: it has none.
	Result io.Writer

	Stdout, Stderr io.Writer
	Progress       func(string) // told what is going on; may be nil

	CPUs   int    // 0: 2
	Icount bool   // time goes by the instruction, a nanosecond each; one CPU, no KVM
	Memory int    // in MiB; 0: 1024
	Accel  string // "kvm" or "tcg"; "": what works
	// Timeout ends the machine after so long; 0: never.
	Timeout time.Duration
	// CacheDir is where it is remembered whether KVM works, and where machines sleep
	// whose kernels have booted.
	CacheDir string

	rootFS  string // by which file system the host's root comes, with HostRoot
	version []byte // what the emulator says of itself
}

// File is a file to put into the machine.
type File struct {
	Name    string
	Mode    fs.FileMode
	Content []byte
}

// Result is how the command ended.
type Result struct {
	ExitStatus int
}

// ErrNoQEMU says that there is no emulator.
var ErrNoQEMU = errors.New("qemu is not installed: apt install qemu-system-x86")

// CrashError says that the machine's kernel crashed.
type CrashError struct{ Oops string }

func (e *CrashError) Error() string { return "the kernel crashed in the machine" }

// HangError says that the machine came to a stop.
type HangError struct {
	After   time.Duration
	Console string // its last words
	Timeout bool   // it was the time limit that ended it
}

func (e *HangError) Error() string {
	if e.Timeout {
		return fmt.Sprintf("the machine was still working after %v (--timeout)", e.After)
	}
	return fmt.Sprintf("the machine has given no sign of life for %v", e.After)
}

// ProgramEnv names a kedr for 32-bit kernels.
const ProgramEnv = "KEDR_386"

// program is the file of a kedr that runs in the machine.
func (c *Config) program() (string, error) {
	self, err := os.Executable()
	if err != nil || c.Kernel.Arch() == distro.AMD64 {
		return self, err
	}
	name := os.Getenv(ProgramEnv)
	if name == "" {
		name = filepath.Join(filepath.Dir(self), "kedr-386")
	}
	if _, err := os.Stat(name); err != nil {
		return "", fmt.Errorf("a kedr for 32 bits has to run in the machine: %w: put kedr-386 (GOARCH=386 go build) there, or name it by %s", err, ProgramEnv)
	}
	return name, nil
}

const (
	// bootPatience is how long a machine under KVM may take to say anything; one
	// that works does so in a tenth of it.
	bootPatience = 4 * time.Second
	// silence is how long a working machine may give no sign of life; it gives
	// one every second. Time in which the emulator gets no CPU does not count.
	silence = 60 * time.Second
	// longestSilence is that with such time.
	longestSilence = 5 * time.Minute
	// countedSilence is that where time goes by the instruction: a second of the
	// machine's takes ten here, and more on a busy host.
	countedSilence = 10 * time.Minute
	// wakePatience is how long a machine that wakes may take to give the first; it does so in
	// a tenth of it, and one that does not is booted.
	wakePatience = 20 * time.Second
	// maxBoots is how often a kernel may crash before its init runs.
	maxBoots = 3
	// maxConsole bounds what is kept of the console: its end.
	maxConsole = 256 << 10
)

// errSilent says that the machine printed nothing at all.
var errSilent = errors.New("the machine printed nothing")

// Run starts a machine, runs the command and takes the machine away again,
// whatever happens. Errors: ErrNoQEMU, *CrashError, *HangError.
func Run(ctx context.Context, c Config) (*Result, error) {
	if _, err := exec.LookPath(c.emulator()); err != nil {
		return nil, ErrNoQEMU
	}
	c.progress("preparing %s", c.Kernel.Release)
	initrd, err := c.makeInitramfs()
	if err != nil {
		return nil, err
	}
	defer initrd.Close()
	if c.Icount {
		c.Accel = "tcg" // KVM does not count
	}
	chosen := c.Accel != ""
	if !chosen {
		c.Accel = c.rememberedAccel()
	}
	if c.Accel == "" {
		// Being allowed to open /dev/kvm does not mean that a guest boots on it.
		m := &guestProcess{config: &c, accel: "kvm", initrd: initrd, patience: bootPatience}
		res, err := m.run(ctx)
		if !errors.Is(err, errSilent) {
			if m.lastSign.Load() != 0 {
				c.rememberAccel("kvm")
			}
			return res, err
		}
		c.rememberAccel("tcg")
		c.Accel = "tcg"
	}
	if c.Accel == "tcg" {
		c.askVersion()
	}
	maySleep := true
	for try := 1; ; try++ {
		m := &guestProcess{config: &c, accel: c.Accel, initrd: initrd}
		if maySleep {
			m.sleep = m.bed()
		}
		res, err := m.run(ctx)
		// A state that does not wake, or that can't be written, is done without.
		var hang *HangError
		late := errors.As(err, &hang) && hang.Timeout
		if err != nil && !late && ctx.Err() == nil && (m.woken && m.lastSign.Load() == 0 || errors.Is(err, errSleep)) {
			maySleep = m.woken && os.Remove(m.sleep.file) == nil
			continue
		}
		// KVM may have worked once, and be taken away since.
		if err != nil && m.lastSign.Load() == 0 && c.Accel == "kvm" && !chosen && ctx.Err() == nil {
			c.rememberAccel("tcg")
			c.Accel = "tcg"
			c.askVersion()
			continue
		}
		// A kernel that dies before it has come to us is not the command's doing.
		var crash *CrashError
		if errors.As(err, &crash) && m.lastSign.Load() == 0 && try < maxBoots {
			c.progress("%s crashed while booting: booting it again", c.Kernel.Release)
			continue
		}
		return res, err
	}
}

func (c *Config) progress(format string, args ...any) {
	if c.Progress != nil {
		c.Progress(fmt.Sprintf(format, args...))
	}
}

// makeInitramfs makes the initramfs in memory: no file is left, come what may.
func (c *Config) makeInitramfs() (*os.File, error) {
	fd, err := unix.MemfdCreate("kedr-initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("no memory for the machine's initramfs: %w", err)
	}
	f := os.NewFile(uintptr(fd), "initramfs")
	if err := writeInitramfs(f, c); err != nil {
		f.Close()
		return nil, fmt.Errorf("making the machine's initramfs: %w", err)
	}
	return f, nil
}

// guestProcess is one run of the emulator.
type guestProcess struct {
	config   *Config
	accel    string
	initrd   *os.File
	patience time.Duration // for the first sign of life; 0: as for any other

	sleep  *bed   // where the machine's state is, or is to be; nil: nowhere
	woken  bool   // it comes from there
	socket string // of the server of the host's root, with virtiofs

	console  tail
	lastSign atomic.Int64 // ns of the monotonic clock since start
	started  time.Time
}

func orDefault(n, def int) int {
	if n > 0 {
		return n
	}
	return def
}

func (g *guestProcess) run(ctx context.Context) (*Result, error) {
	c := g.config
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A child is killed when the thread goes that has started it, and one that another
	// goroutine was locked to does go: so this one is kept until the machine has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if c.rootFS == rootVirtioFS {
		stop, err := g.serveRoot()
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	w, err := g.wire()
	if err != nil {
		return nil, err
	}
	defer w.close()
	cmd := exec.CommandContext(ctx, c.emulator(), w.args...)
	cmd.ExtraFiles = w.theirs
	cmd.Stdout = &g.console
	var complaints tail
	cmd.Stderr = &complaints
	// The machine goes when we go, even by kill -9; and a Ctrl-C is ours to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.WaitDelay = time.Second
	g.started = time.Now()
	doing := "booting"
	if g.woken {
		doing = "waking"
	}
	c.progress("%s %s (%s)", doing, c.Kernel.Release, g.accel)
	err = cmd.Start()
	w.closeTheirs()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.emulator(), err)
	}
	var stopped atomic.Pointer[HangError]
	watch := make(chan struct{})
	go func() {
		defer close(watch)
		if h := g.watch(ctx, cmd.Process.Pid); h != nil {
			stopped.Store(h)
			cancel()
		}
	}()
	ordered := g.woken
	if ordered {
		go g.order(w.orders)
	}
	res, failure := g.listen(w.frames, func() error {
		if ordered {
			return nil // what has its job may say anything
		}
		ordered = true
		if w.monitor != nil {
			c.progress("keeping %s as it has booted, for the next time", c.Kernel.Release)
			if err := g.sleep.lay(w.monitor); errors.Is(err, errSleep) && ctx.Err() == nil {
				return err
			}
		}
		go g.order(w.orders)
		return nil
	})
	parent := ctx.Err()
	cancel()
	waitErr := cmd.Wait()
	<-watch
	switch {
	case res != nil:
		return res, nil
	case failure != nil:
		return nil, failure
	case stopped.Load() != nil:
		h := stopped.Load()
		if g.patience > 0 && g.console.len() == 0 {
			return nil, errSilent
		}
		h.Console = g.console.String()
		return nil, h
	case parent != nil:
		return nil, parent
	}
	console := g.console.String()
	if oops := findOops(console); oops != "" {
		return nil, &CrashError{Oops: oops}
	}
	if g.patience > 0 && g.lastSign.Load() == 0 {
		return nil, errSilent // the emulator gave up before the guest said a word
	}
	if msg := complaints.String(); msg != "" {
		return nil, fmt.Errorf("%s: %s", c.emulator(), firstLine(msg))
	}
	if _, why, ok := strings.Cut(console, notReady); ok {
		return nil, fmt.Errorf("the machine could not be made ready: %q", firstLine(why))
	}
	return nil, fmt.Errorf("the machine ended before its work was done (%v); its last words: %q", waitErr, lastLine(console))
}

// watch waits for silence or the time limit, and returns nil when the machine
// has ended by itself.
func (g *guestProcess) watch(ctx context.Context, pid int) *HangError {
	limit := silence
	silent := silenceWatch{most: longestSilence, queued: func() map[int]time.Duration { return queued(pid) }}
	if g.config.Icount {
		limit, silent.most = countedSilence, countedSilence
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Since(g.started)
		if t := g.config.Timeout; t > 0 && now > t {
			return &HangError{After: t, Timeout: true}
		}
		sign := time.Duration(g.lastSign.Load())
		if g.patience > 0 && sign == 0 && now > g.patience && g.console.len() == 0 {
			return &HangError{After: g.patience}
		}
		silent.limit = limit
		if g.woken && sign == 0 {
			silent.limit = wakePatience
		}
		if silent.over(now, sign) {
			return &HangError{After: (now - sign).Round(time.Second)}
		}
	}
}

// order sends the machine its job. That it does not take it shows in what it says.
func (g *guestProcess) order(to io.Writer) {
	c := g.config
	// A link would lead elsewhere in the machine.
	lib, err := filepath.EvalSymlinks(c.Kernel.Modules())
	if err != nil {
		lib = c.Kernel.Modules()
	}
	j := &job{
		Argv: c.Argv, Env: c.Env, Dir: c.Dir, Result: c.Result != nil, Lib: lib,
		RootFS: c.rootFS, Overlay: c.ArchRoot != "", Time: time.Now().UnixNano(), Seed: make([]byte, 32),
	}
	rand.Read(j.Seed)
	j.send(to, c.Files)
}

// listen reads the guest's frames to the last, and calls ready when it waits for its job.
// Both results are nil where the machine ended without one.
func (g *guestProcess) listen(r io.Reader, ready func() error) (*Result, error) {
	c := g.config
	for {
		typ, b, err := readFrame(r)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, nil
			}
			return nil, err
		}
		if g.lastSign.Swap(int64(time.Since(g.started))) == 0 {
			c.progress("running in %s (%s)", c.Kernel.Release, g.accel)
		}
		switch typ {
		case frameReady:
			if err := ready(); err != nil {
				return nil, err
			}
		case frameStdout:
			writeTo(c.Stdout, b)
		case frameStderr:
			writeTo(c.Stderr, b)
		case frameResult:
			if c.Result == nil {
				continue
			}
			if _, err := c.Result.Write(b); err != nil {
				return nil, fmt.Errorf("taking the machine's result: %w", err)
			}
		case frameProgress:
			c.progress("%q", b)
		case frameFailed:
			return nil, fmt.Errorf("in the machine: %q", b)
		case frameExit:
			if len(b) != 4 {
				return nil, fmt.Errorf("the machine sent an exit status of %d bytes", len(b))
			}
			return &Result{ExitStatus: int(binary.LittleEndian.Uint32(b))}, nil
		}
	}
}

func writeTo(w io.Writer, b []byte) {
	if w != nil {
		w.Write(b)
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > 2*maxConsole {
		t.b = append(t.b[:0], t.b[len(t.b)-maxConsole:]...)
	}
	return len(b), nil
}

func (t *tail) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.b)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
