package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tool is something that watches, or nothing.
type tool struct {
	name  string
	start func(*guest) (stop func() error, err error)
}

var nothing = tool{"nothing", func(*guest) (func() error, error) { return func() error { return nil }, nil }}

// kedr is a session of kedr for a module, which is loaded as well if it is not the one
// that measures.
func kedr(name, module string, flags ...string) tool {
	return tool{name, func(g *guest) (func() error, error) {
		args := append([]string{"start"}, flags...)
		if _, err := g.kedr(append(args, g.module(module))...); err != nil {
			return nil, err
		}
		stop := func() error { _, err := g.kedr("stop"); return err }
		if module == "bench" {
			return stop, nil
		}
		if err := g.load(module); err != nil {
			return nil, errors.Join(err, stop())
		}
		return func() error { return errors.Join(unload(module), stop()) }, nil
	}}
}

// used is what a program has taken.
type used struct {
	cpu  time.Duration
	peak int // KB of memory
}

// kedr runs kedr; that it finds leaks, or that events were lost, is no error here.
func (g *guest) kedr(args ...string) (used, error) {
	cmd := exec.Command(g.Kedr, args...)
	var talk bytes.Buffer
	cmd.Stderr = &talk
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return used{}, err
	}
	u := used{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), peak(cmd.ProcessState)}
	if code := cmd.ProcessState.ExitCode(); err != nil && code != 1 && code != 4 {
		return u, fmt.Errorf("kedr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(talk.Bytes()))
	}
	return u, nil
}

var (
	kedrOther     = kedr("kedr, for another module, which obtains such", "other")
	kedrUnrelated = kedr("kedr, for another module, which does not", "unrelated")
	kedrTarget    = kedr("kedr, for this module", "bench")
	kedrTrace     = kedr("kedr, for this module, traced", "bench", "--trace")
)

// process is a tool that works until it is interrupted.
func process(name string, env []string, ready func(*exec.Cmd, io.Reader) error, command func(*guest) []string) tool {
	return tool{name, func(g *guest) (func() error, error) {
		args := command(g)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), env...)
		var talk bytes.Buffer
		cmd.Stderr = &talk
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		stop := func() error {
			cmd.Process.Signal(os.Interrupt)
			late := time.AfterFunc(10*time.Minute, func() { cmd.Process.Kill() })
			defer late.Stop()
			cmd.Wait() // what it says of being interrupted differs
			return nil
		}
		if err := ready(cmd, out); err != nil {
			stop()
			return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(talk.Bytes()))
		}
		go io.Copy(io.Discard, out)
		return stop, nil
	}}
}

// says waits for a program to say a word.
func says(word string) func(*exec.Cmd, io.Reader) error {
	return func(_ *exec.Cmd, out io.Reader) error {
		var all []byte
		b := make([]byte, 4096)
		for {
			n, err := out.Read(b)
			if err != nil {
				return fmt.Errorf("it ended before it said %q: %w", word, err)
			}
			if all = append(all, b[:n]...); bytes.Contains(all, []byte(word)) {
				return nil
			}
		}
	}
}

// sleeps waits for a program to sleep until it is to show something: memleak keeps what
// it says in a buffer until then.
func sleeps(cmd *exec.Cmd, _ io.Reader) error {
	const nanosleep = "230 " // clock_nanosleep on x86-64
	for range 6000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", cmd.Process.Pid))
		if err != nil {
			return err
		}
		if len(b) == 0 {
			break
		}
		if bytes.HasPrefix(b, []byte(nanosleep)) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("it is not at work")
}

// hour is an interval in which a tool shows nothing.
const hour = "3600"

var memleak = process("memleak", nil, sleeps, func(g *guest) []string {
	return []string{filepath.Join(g.Programs, "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", filepath.Join(g.Programs, "usr/lib/x86_64-linux-gnu"),
		filepath.Join(g.Programs, "usr/sbin/memleak-libbpf"), hour}
})

// outstanding is what people write to see what is not given back.
const outstanding = `
tracepoint:kmem:kmalloc, tracepoint:kmem:kmem_cache_alloc { @[args->ptr] = kstack; }
tracepoint:kmem:kfree, tracepoint:kmem:kmem_cache_free { delete(@[args->ptr]); }
kretprobe:%s { @area[retval] = kstack; }
kprobe:vfree { delete(@area[arg0]); }
tracepoint:kmem:mm_page_alloc { @page[args->pfn] = kstack; }
tracepoint:kmem:mm_page_free { delete(@page[args->pfn]); }
`

// calls prints six arguments and the result of a call.
const calls = `
kprobe:mktime64 { @s[tid] = nsecs; printf("%d %s %d mktime64(%d, %d, %d, %d, %d, %d)\n", nsecs, comm, tid, arg0, arg1, arg2, arg3, arg4, arg5); }
kretprobe:mktime64 /@s[tid]/ { printf("%d = %d\n", nsecs - @s[tid], retval); delete(@s[tid]); }
`

func bpftrace(script func() string) tool {
	return process("bpftrace", []string{"BPFTRACE_MAP_KEYS_MAX=200000"}, says("ready"), func(*guest) []string {
		return []string{"bpftrace", "-e", script() + `BEGIN { printf("ready\n"); }`}
	})
}

var bpftraceObjects = bpftrace(func() string {
	vmalloc := "vmalloc"
	if b, err := os.ReadFile("/proc/kallsyms"); err == nil && bytes.Contains(b, []byte(" T vmalloc_noprof\n")) {
		vmalloc = "vmalloc_noprof"
	}
	return fmt.Sprintf(outstanding, vmalloc)
})

var bpftraceCalls = bpftrace(func() string { return calls })

var traceCmd = tool{"trace-cmd -p function_graph -l mktime64", func(*guest) (func() error, error) {
	cmd := func(args ...string) error {
		if out, err := exec.Command("trace-cmd", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("trace-cmd %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
		return nil
	}
	return func() error { return cmd("reset") }, cmd("start", "-p", "function_graph", "-l", "mktime64")
}}

// output is the first line of what a program prints; "": it can't be run.
func output(name string, args ...string) string {
	out, _ := exec.CommandContext(context.Background(), name, args...).Output()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
