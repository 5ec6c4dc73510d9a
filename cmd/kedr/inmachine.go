package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kedr/internal/distro"
	"kedr/internal/kernel"
	"kedr/internal/machine"
	"kedr/internal/probe"
	"kedr/internal/session"
	"kedr/internal/target"
)

// inGuest runs in the machine: the capture goes to the host, which has the
// sources and all the time for names and lines.
func (f *runFlags) inGuest(ctx context.Context, k *kernel.Kernel, name string, params, workload []string) error {
	m, out, err := guestTarget(k, name)
	if err != nil {
		return err
	}
	c, err := f.here(ctx, k, m, params, workload)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(z).Encode(c), z.Close(), out.Close())
}

// guestTarget is the module that a command in a machine is about, and where its result goes.
func guestTarget(k *kernel.Kernel, name string) (*target.Module, *os.File, error) {
	out, err := resultFile()
	if err != nil {
		return nil, nil, err
	}
	m, err := findTarget(k, name)
	if err != nil {
		return nil, nil, err
	}
	return m, out, hostCanWatch(k, []*target.Module{m})
}

// resultFile is where a command in a machine writes what its host is waiting for.
func resultFile() (*os.File, error) {
	fd, err := strconv.Atoi(os.Getenv(machine.ResultEnv))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", machine.ResultEnv, err)
	}
	// Meant for us alone, not for what the workload starts.
	os.Unsetenv(machine.ResultEnv)
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "result"), nil
}

// machineJob is what a machine is to do.
type machineJob struct {
	verb     []string // of kedr, and its flags
	params   []string
	workload []string
	catalogs []string
	btf      string // file with the kernel's types
}

// inMachine runs a command of kedr on a module in a machine. What it writes to its
// result goes to the writer that to returns; to is called when the module is known.
func (f *hostFlags) inMachine(cmd *cobra.Command, name string, why error, j *machineJob, to func(*target.Module) io.Writer) (*target.Module, error) {
	ctx := cmd.Context()
	p := newProgress()
	defer p.clear()
	store, err := distro.NewStore(p.say)
	if err != nil {
		return nil, err
	}
	var m *target.Module
	isFile := strings.ContainsRune(name, '/') || strings.Contains(name, ".ko")
	version := f.kernel
	if isFile {
		if m, err = openTarget(name); err != nil {
			return nil, err
		}
		if version == "" {
			version = m.Release()
		}
	}
	k, err := chooseKernel(ctx, store, version)
	if err != nil {
		return nil, err
	}
	if !isFile {
		path, err := kernel.FindModule(k.Modules(), name)
		if err != nil {
			return nil, fmt.Errorf("%w: give the path of its .ko file", err)
		}
		if m, err = openTarget(path); err != nil {
			return nil, err
		}
	}
	if m.Release() != k.Release {
		return nil, usage("%s is built for kernel %s, and --kernel %s is %s: build it for that one (kedr vm headers %s names the headers)", name, m.Release(), f.kernel, k.Release, k.Release)
	}
	if why != errAsked {
		p.say("%v: using a machine with kernel %s", why, k.Release)
	}
	// Its output is talk: the standard output is for the result.
	err = f.work(ctx, store, k, m, j, to(m), os.Stderr, p.show)
	p.clear()
	if err != nil {
		return nil, machineError(err)
	}
	return m, nil
}

// work does a job on a module in a machine. What the machine's programs print goes to
// talk. Errors are machine.Run's, and a *statusError where the job has failed.
func (f *hostFlags) work(ctx context.Context, store *distro.Store, k distro.Kernel, m *target.Module, j *machineJob, result, talk io.Writer, show func(string)) (err error) {
	params, workload := j.params, j.workload
	argv := append(append([]string{machine.Self}, j.verb...), "--vm=never")
	if probe.Trace != nil {
		argv = append(argv, "-v")
	}
	cfg := machine.Config{
		Kernel: k, Stdout: talk, Stderr: talk, Progress: show, Memory: f.memory, CPUs: f.cpus, Result: result,
		Timeout: f.timeout, CacheDir: store.Dir, Env: os.Environ(),
	}
	for i, name := range j.catalogs {
		text, err := readCatalog(name)
		if err != nil {
			return err
		}
		// With the host's root, the file is where it is on the host.
		to := fmt.Sprintf("/target/catalog%d.toml", i)
		if len(workload) > 0 {
			if to, err = filepath.Abs(name); err != nil {
				return err
			}
		} else {
			cfg.Files = append(cfg.Files, machine.File{Name: to, Mode: 0o600, Content: text})
		}
		argv = append(argv, "--catalog", to)
	}
	switch {
	case j.btf == kernel.NoBTF:
		argv = append(argv, "--btf", j.btf)
	case j.btf != "" && len(workload) > 0:
		to, err := filepath.Abs(j.btf)
		if err != nil {
			return err
		}
		argv = append(argv, "--btf", to)
	case j.btf != "":
		types, err := os.ReadFile(j.btf)
		if err != nil {
			return fmt.Errorf("reading types: %w", err)
		}
		cfg.Files = append(cfg.Files, machine.File{Name: "/target/btf", Mode: 0o600, Content: types})
		argv = append(argv, "--btf", "/target/btf")
	}
	inside := "/target/" + m.Name + ".ko"
	if len(workload) > 0 {
		cfg.HostRoot = true
		if cfg.ArchRoot, err = store.Root(ctx, k); err != nil {
			return err
		}
		if cfg.Dir, err = os.Getwd(); err != nil {
			return err
		}
		inside = m.Path
	} else {
		cfg.Files = append(cfg.Files, machine.File{Name: inside, Mode: 0o600, Content: m.Image()})
		if err := carryDependencies(&cfg, k, m); err != nil {
			return err
		}
	}
	cfg.Argv = append(append(argv, inside), params...)
	if len(workload) > 0 {
		cfg.Argv = append(append(cfg.Argv, "--"), workload...)
	}
	res, err := machine.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if res.ExitStatus != 0 {
		return &statusError{status: res.ExitStatus}
	}
	return nil
}

// carryDependencies puts the modules that a target needs into the machine: those
// of its kernel are loaded there, those beside the target come along as files.
func carryDependencies(cfg *machine.Config, k distro.Kernel, m *target.Module) error {
	seen := make(map[string]bool)
	var carry func(deps []string) error
	carry = func(deps []string) error {
		for _, d := range deps {
			if seen[d] {
				continue
			}
			seen[d] = true
			if _, err := kernel.FindModule(k.Modules(), d); err == nil {
				cfg.Modules = append(cfg.Modules, d)
				continue
			}
			path, err := kernel.ModuleBeside(filepath.Dir(m.Path), d)
			if err != nil {
				return fmt.Errorf("%s needs %w, nor has %s", m.Name, err, k.Release)
			}
			dep, err := openTarget(path)
			if err != nil {
				return err
			}
			if err := carry(dep.Depends); err != nil {
				return err
			}
			cfg.Files = append(cfg.Files, machine.File{Name: "/target/" + d + ".ko", Mode: 0o600, Content: dep.Image()})
		}
		return nil
	}
	return carry(m.Depends)
}

// limitedBuffer bounds what a machine can make its host keep.
type limitedBuffer struct{ bytes.Buffer }

const maxResult = 1 << 30

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxResult {
		return 0, fmt.Errorf("it is larger than %d bytes", maxResult)
	}
	return b.Buffer.Write(p)
}

func readCapture(data *bytes.Buffer) (*session.Capture, error) {
	if data.Len() == 0 {
		return nil, errors.New("the machine sent no result")
	}
	z, err := gzip.NewReader(data)
	if err != nil {
		return nil, fmt.Errorf("reading the machine's result: %w", err)
	}
	var c session.Capture
	if err := json.NewDecoder(io.LimitReader(z, 4<<30)).Decode(&c); err != nil {
		return nil, fmt.Errorf("reading the machine's result: %w", err)
	}
	return &c, nil
}

// machineError gives a machine's end its exit status, and prints its last words.
func machineError(err error) error {
	words, crashed := lastWords(err)
	if !crashed {
		return err
	}
	if words != "" {
		fmt.Fprintln(os.Stderr, words)
	}
	return &statusError{status: exitCrashed, err: err}
}

// lastWords are those of a machine whose kernel crashed, its oops, or hung.
func lastWords(err error) (words string, crashed bool) {
	var crash *machine.CrashError
	var hang *machine.HangError
	switch {
	case errors.As(err, &crash):
		words = crash.Oops
	case errors.As(err, &hang):
		words = strings.TrimSpace(hang.Console)
	default:
		return "", false
	}
	return strings.Map(printable, words), true
}

// printable keeps a guest's console from driving ours.
func printable(r rune) rune {
	if r == '\n' || r == '\t' || strconv.IsPrint(r) {
		return r
	}
	return -1
}

// chooseKernel finds or fetches the kernel of a machine.
func chooseKernel(ctx context.Context, store *distro.Store, version string) (distro.Kernel, error) {
	if version == "" {
		if cached, err := store.Cached(); err != nil {
			return distro.Kernel{}, err
		} else if len(cached) > 0 {
			return cached[0], nil
		}
		version = defaultKernel
	}
	return store.Fetch(ctx, version, false)
}

// defaultKernel is what a machine gets that nobody asked a version for.
const defaultKernel = "6.1"
