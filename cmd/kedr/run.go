package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kedr/internal/kernel"
	"kedr/internal/machine"
	"kedr/internal/session"
	"kedr/internal/target"
)

// runFlags are what "kedr run" is told.
type runFlags struct {
	hostFlags
	settle  time.Duration
	sites   bool // also capture what was given back
	limits  session.Options
	catalog catalogFlag
	out     outputFlags

	suppress suppressFlags
}

// hostFlags say where a module is loaded: here, or in a machine.
type hostFlags struct {
	vm      string
	kernel  string
	timeout time.Duration
	memory  int
	cpus    int
}

func (f *hostFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.vm, "vm", "auto", "run in a disposable machine: auto, always, never")
	fl.StringVar(&f.kernel, "kernel", "", "`VERSION` of the machine's kernel (6.1, 6.12, or a full release); the module's own by default")
	f.registerMachine(cmd)
	cmd.RegisterFlagCompletionFunc("vm", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
}

// registerMachine registers what goes for every machine.
func (f *hostFlags) registerMachine(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.DurationVar(&f.timeout, "timeout", 0, "end the machine after this time; 0: never")
	fl.IntVar(&f.memory, "memory", 1024, "memory of the machine, in `MiB`")
	fl.IntVar(&f.cpus, "cpus", 2, "number of CPUs of the machine")
}

func newRun() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] MODULE [param=value ...] [-- WORKLOAD [ARG ...]]",
		Short: "Load a module, run a workload, unload it, report what it leaked",
		Long: `Run arms the probes, loads MODULE and what it depends on, runs WORKLOAD if one
is given, unloads the module, waits for deferred frees, and reports.

MODULE is a .ko file (also .ko.xz, .ko.zst, .ko.gz) or the name of an installed
module, as modprobe takes it.

Where this host can't do it (no root, a kernel without modules or BPF, another
kernel than the module was built for), it happens in a disposable machine; one
line says so. WORKLOAD is any program of the host there, too.

What --suppressions and --baseline leave out does not count for the exit status.

Exit status:
  0  nothing leaked
  1  leaks or wrong frees found
  2  wrong usage
  3  could not run; the message says what to do about it. Also where nothing leaked,
     but WORKLOAD failed
  4  the result is incomplete: events were lost, or a function was not watched
  5  the kernel crashed or hung in the machine; its oops is printed`,
		Example: `  kedr run hello-kernel.ko
  kedr run mydriver.ko debug=1 -- ./exercise-driver.sh
  kedr run --kernel 6.12 --format json -o leaks.json mydriver.ko
  kedr run --report json=leaks.json --report sarif=leaks.sarif mydriver.ko
  kedr run --suppressions known.supp --baseline main.json mydriver.ko
  kedr run ext4 -- sh -c 'modprobe loop; mount -o loop disk.img /mnt && umount /mnt'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, params, workload, err := moduleArgs(cmd, args)
			if err != nil {
				return err
			}
			return f.run(cmd, name, params, workload)
		},
	}
	f.hostFlags.register(cmd)
	f.registerAnalysis(cmd)
	f.out.register(cmd)
	f.suppress.register(cmd)
	// For a kedr in a machine, whose host knows what is wanted.
	cmd.Flags().BoolVar(&f.sites, "sites", false, "")
	cmd.Flags().MarkHidden("sites")
	return cmd
}

// registerAnalysis registers how a module is watched.
func (f *runFlags) registerAnalysis(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.settle, "settle", time.Second, "how long to wait for deferred frees after the unload")
	limitFlags(cmd, &f.limits)
	f.catalog.register(cmd)
}

// check finds mistakes before anything starts.
func (f *runFlags) check() error {
	if f.settle < 0 {
		return usage("--settle: must not be negative")
	}
	_, err := f.catalog.load()
	return err
}

// moduleArgs takes MODULE [param=value ...] [-- WORKLOAD ...] apart.
func moduleArgs(cmd *cobra.Command, args []string) (name string, params, workload []string, err error) {
	if n := cmd.ArgsLenAtDash(); n >= 0 {
		args, workload = args[:n], args[n:]
		if len(workload) == 0 {
			return "", nil, nil, usage("no WORKLOAD after --")
		}
	}
	if len(args) == 0 {
		return "", nil, nil, usage("no MODULE given: see %s --help", cmd.CommandPath())
	}
	for _, p := range args[1:] {
		if !strings.Contains(p, "=") {
			return "", nil, nil, usage("%q is no parameter (name=value): a workload comes after --", p)
		}
	}
	return args[0], args[1:], workload, nil
}

func (f *runFlags) run(cmd *cobra.Command, name string, params, workload []string) error {
	if err := f.out.check(cmd); err != nil {
		return err
	}
	if err := f.suppress.check(cmd, &f.out); err != nil {
		return err
	}
	f.sites = f.sites || f.out.sites()
	if err := f.check(); err != nil {
		return err
	}
	k, err := f.runningKernel()
	if err != nil {
		return err
	}
	if os.Getenv(machine.ResultEnv) != "" && f.vm == "never" {
		return f.inGuest(cmd.Context(), k, name, params, workload)
	}
	why, err := f.place(k, name)
	if err != nil {
		return err
	}
	var capture *session.Capture
	if why == nil {
		m, err := findTarget(k, name)
		if err != nil {
			return err
		}
		if err := hostCanWatch(k, []*target.Module{m}); err != nil {
			return err
		}
		if capture, err = f.here(cmd.Context(), k, m, params, workload); err != nil {
			return err
		}
		return f.report(cmd, capture)
	}
	job := f.job(params, workload)
	var data limitedBuffer
	m, err := f.inMachine(cmd, name, why, job, func(*target.Module) io.Writer { return &data })
	if err != nil {
		return err
	}
	if capture, err = readCapture(&data.Buffer); err != nil {
		return err
	}
	for i := range capture.Targets {
		capture.Targets[i].Path = m.Path
	}
	return f.report(cmd, capture)
}

// job is the analysis that a machine is to make.
func (f *runFlags) job(params, workload []string) *machineJob {
	j := &machineJob{
		verb: []string{"run", "--settle", f.settle.String(),
			"--max-objects", fmt.Sprint(f.limits.MaxObjects), "--max-stacks", fmt.Sprint(f.limits.MaxStacks),
			"--backend", string(f.limits.Backend), "--verify-stacks=" + strconv.FormatBool(f.limits.VerifyStacks)},
		btf:    f.limits.BTF,
		params: params, workload: workload, catalogs: f.catalog.files,
	}
	if f.sites {
		j.verb = append(j.verb, "--sites")
	}
	return j
}

// runningKernel describes the host's kernel. The file of types is for the kernel that is
// watched.
func (f *runFlags) runningKernel() (*kernel.Kernel, error) {
	if f.vm == "always" {
		return kernel.Running()
	}
	return kernel.RunningWith(f.limits.BTF)
}

// place says why it can't happen on this host, but has to in a machine; nil: it can.
func (f *hostFlags) place(k *kernel.Kernel, name string) (why error, err error) {
	switch {
	case !slices.Contains([]string{"auto", "always", "never"}, f.vm):
		return nil, usage("--vm=%s: must be auto, always or never", f.vm)
	case f.vm == "never":
		return nil, nil
	case f.vm == "always":
		return errAsked, nil
	case f.kernel != "" && f.kernel != k.Release:
		return fmt.Errorf("--kernel %s was asked for", f.kernel), nil
	}
	return f.hostCan(k, name), nil
}

// errAsked is why a machine is used that needs no explanation.
var errAsked = errors.New("--vm=always")

// report writes what was captured.
func (f *runFlags) report(cmd *cobra.Command, c *session.Capture) error {
	err := f.suppress.report(cmd, &f.out, makeReports(c))
	if err == nil {
		err = unproven(c)
	}
	return err
}

// unproven says why a module that leaked nothing has not been found clean: it did not
// load, or what it was to be tried with did not work.
func unproven(c *session.Capture) error {
	switch {
	case c.LoadError != "":
		return fmt.Errorf("loading %s: %s", c.Targets[0].Name, c.LoadError)
	case c.WorkloadError != "":
		return fmt.Errorf("nothing leaked, but the workload ended with: %s: it may not have done all that it was to do", c.WorkloadError)
	}
	return nil
}

// hostCan says what keeps this host from running the analysis itself.
func (f *hostFlags) hostCan(k *kernel.Kernel, name string) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can load modules here")
	}
	if !kernel.HasModules() {
		return fmt.Errorf("the running kernel %s can't load modules", k.Release)
	}
	if kernel.LockedDown() {
		return fmt.Errorf("the running kernel %s is locked down", k.Release)
	}
	if m, err := findTarget(k, name); err == nil && m.Release() != k.Release {
		return fmt.Errorf("the module is built for kernel %s", m.Release())
	}
	return nil
}

// here runs the analysis on this kernel.
func (f *runFlags) here(ctx context.Context, k *kernel.Kernel, m *target.Module, params, workload []string) (c *session.Capture, err error) {
	cat, err := f.catalog.load()
	if err != nil {
		return nil, err
	}
	var s *session.Session
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	arm := func() (err error) {
		s, err = session.Arm(cat, k, f.limits, m)
		return err
	}
	err = exercise(ctx, k, m, params, workload, arm, func(loadErr, workErr error) error {
		if err := s.Settle(ctx, f.settle); err != nil {
			return err
		}
		if c, err = s.Capture(f.settle, f.sites); err != nil {
			return err
		}
		if loadErr != nil {
			if len(c.Loads) == 0 {
				return fmt.Errorf("loading %s: %w", m.Name, loadErr)
			}
			// It has run and failed: what it leaked on the way is the result.
			c.LoadError = loadErr.Error()
		}
		if workErr != nil {
			c.WorkloadError = workErr.Error()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// exercise loads a module and what it depends on, runs a workload, and unloads it. arm is
// called just before the module comes, and after when it has gone, or could not be
// loaded; it is told of that, and of a workload that did not end well.
func exercise(ctx context.Context, k *kernel.Kernel, m *target.Module, params, workload []string, arm func() error, after func(loadErr, workErr error) error) error {
	unloadDeps, err := loadDependencies(k, m)
	defer unloadDeps()
	if err != nil {
		return err
	}
	if err := arm(); err != nil {
		return err
	}
	var workErr error
	loadErr := kernel.Load(m.Image(), params)
	if loadErr == nil {
		if len(workload) > 0 {
			w := exec.CommandContext(ctx, workload[0], workload[1:]...)
			// Its output is talk: the standard output is for the result.
			w.Stdin, w.Stdout, w.Stderr = os.Stdin, os.Stderr, os.Stderr
			w.Cancel = func() error { return w.Process.Signal(unix.SIGTERM) }
			w.WaitDelay = 5 * time.Second
			if workErr = w.Run(); workErr != nil {
				fmt.Fprintf(os.Stderr, "kedr: the workload ended with: %v\n", workErr)
			}
		}
		if err := unload(m.Name); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return after(loadErr, workErr)
}

// unload removes a module, which a workload's last reference may still hold.
func unload(name string) error {
	var err error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = unix.DeleteModule(name, unix.O_NONBLOCK); err == nil || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
	}
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil // the workload may have unloaded it
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBUSY):
		return fmt.Errorf("unloading %s: it is still in use, or has no exit function: end what uses it, then: rmmod %s", name, name)
	}
	return fmt.Errorf("unloading %s: %w", name, err)
}

// loadDependencies loads the installed modules that a module needs; they are
// unloaded again, as far as they let themselves be.
func loadDependencies(k *kernel.Kernel, m *target.Module) (undo func(), err error) {
	var loaded []string
	undo = func() {
		for _, name := range slices.Backward(loaded) {
			unix.DeleteModule(name, unix.O_NONBLOCK)
		}
	}
	done := make(map[string]bool)
	var load func(name string) error
	load = func(name string) error {
		if done[name] || kernel.ModuleLoaded(name) {
			return nil
		}
		done[name] = true
		dep, err := findDependency(k, m, name)
		if err != nil {
			return err
		}
		for _, d := range dep.Depends {
			if err := load(d); err != nil {
				return err
			}
		}
		if err := kernel.Load(dep.Image(), nil); err != nil {
			return fmt.Errorf("loading %s, which %s needs: %w", name, m.Name, err)
		}
		loaded = append(loaded, name)
		return nil
	}
	for _, d := range m.Depends {
		if err := load(d); err != nil {
			return undo, err
		}
	}
	return undo, nil
}

// findDependency looks among the installed modules, then beside the module
// itself, where parts of one out-of-tree driver are built.
func findDependency(k *kernel.Kernel, m *target.Module, name string) (*target.Module, error) {
	path, err := kernel.FindModule("/lib/modules/"+k.Release, name)
	if err != nil {
		beside, dirErr := kernel.ModuleBeside(filepath.Dir(m.Path), name)
		if dirErr != nil {
			return nil, fmt.Errorf("%s needs %w, nor beside it: load it first", m.Name, err)
		}
		path = beside
	}
	return target.Open(path)
}
