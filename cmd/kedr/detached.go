package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kedr/internal/kernel"
	"kedr/internal/leak"
	"kedr/internal/session"
	"kedr/internal/target"
)

func newStart() *cobra.Command {
	var opts session.Options
	var cat catalogFlag
	cmd := &cobra.Command{
		Use:   "start MODULE[,MODULE...]...",
		Short: "Watch modules from now on, whoever loads them",
		Long: `Start arms the probes for one or more modules that are not loaded yet, and
returns. Nothing of kedr runs until the next kedr command: the kernel keeps the
account. The modules may be loaded and unloaded any number of times; see "kedr
report", or read the files in ` + session.FilesDir + `/<module>/.

MODULE is a .ko file (also .ko.xz, .ko.zst, .ko.gz) or the name of an installed
module.`,
		Example: `  kedr start hello-kernel.ko
  insmod hello-kernel.ko && rmmod hello-kernel
  cat ` + session.FilesDir + `/hello_kernel/possible_leaks
  kedr stop`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("name of the target module should be specified for 'start' command")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return start(cmd, opts, &cat, args) },
	}
	limitFlags(cmd, &opts)
	cat.register(cmd)
	return cmd
}

func limitFlags(cmd *cobra.Command, opts *session.Options) {
	cmd.Flags().Uint32Var(&opts.MaxObjects, "max-objects", 131072, "objects outstanding at one time that there is room for")
	cmd.Flags().Uint32Var(&opts.MaxStacks, "max-stacks", 16384, "different call stacks that there is room for")
}

func start(cmd *cobra.Command, opts session.Options, cat *catalogFlag, args []string) error {
	k, err := kernel.Running()
	if err != nil {
		return err
	}
	var targets []*target.Module
	for _, arg := range args {
		for name := range strings.SplitSeq(arg, ",") {
			m, err := findTarget(k, name)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(targets, func(t *target.Module) bool { return t.Name == m.Name }) {
				return usage("module %s is named twice", m.Name)
			}
			targets = append(targets, m)
		}
	}
	if session.Running() {
		return session.ErrRunning
	}
	if err := hostCanWatch(k, targets); err != nil {
		return err
	}
	c, err := cat.load()
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	fmt.Fprintln(out, "Starting KEDR...")
	if err := session.Start(c, k, opts, targets...); err != nil {
		return err
	}
	s, err := session.Open(k)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, u := range s.Unwatched() {
		fmt.Fprintf(cmd.ErrOrStderr(), "kedr: calls of %s will not be seen: %s\n", u.Function, u.Reason)
	}
	for _, t := range targets {
		fmt.Fprintf(out, "watching %s with %d probes; files in %s\n", t.Name, s.Probes(), filepath.Join(session.FilesDir, t.Name))
	}
	fmt.Fprintln(out, "\nKEDR started.")
	return nil
}

// findTarget opens a module by file name or, as modprobe takes it, by name.
func findTarget(k *kernel.Kernel, name string) (*target.Module, error) {
	if strings.ContainsRune(name, '/') || strings.Contains(name, ".ko") {
		return openTarget(name)
	}
	path, err := kernel.FindModule("/lib/modules/"+k.Release, name)
	if err != nil {
		if _, statErr := os.Stat(name); statErr == nil {
			return openTarget(name)
		}
		return nil, fmt.Errorf("%w: give the path of its .ko file", err)
	}
	return openTarget(path)
}

// hostCanWatch says why this host can't watch these modules.
func hostCanWatch(k *kernel.Kernel, targets []*target.Module) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can watch the kernel: run as root, or in a machine (kedr run --vm=always)")
	}
	if !kernel.HasModules() {
		return fmt.Errorf("the running kernel %s can't load modules: use a machine (kedr run --vm=always)", k.Release)
	}
	for _, t := range targets {
		if r := t.Release(); r != "" && r != k.Release {
			return fmt.Errorf("%s is built for kernel %s, and this is %s: build it for this kernel, or use a machine (kedr run --kernel %s)", t.Path, r, k.Release, r)
		}
		if kernel.ModuleLoaded(t.Name) {
			return &session.ErrLoaded{Name: t.Name}
		}
	}
	return nil
}

func openSession() (*session.Session, error) {
	k, err := kernel.Running()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can look at the session: run as root")
	}
	return session.Open(k)
}

func newStop() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "stop",
		Short:   "Stop watching, and remove the files",
		Example: "  kedr stop",
		Args:    exactArgs(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := openSession()
			if errors.Is(err, session.ErrNotRunning) {
				// What a killed start may have left goes as well.
				if session.Stop() == nil {
					return nil
				}
				return err
			}
			if err != nil && !force {
				return err
			}
			if err == nil {
				for _, t := range s.Targets() {
					if kernel.ModuleLoaded(t.Name) && !force {
						s.Close()
						return fmt.Errorf("service cannot be stopped because the target module %s is still loaded: please unload it first, or give --force", t.Name)
					}
				}
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Stopping KEDR...")
			if err == nil {
				s.Close() // what is open can't be removed
			}
			if err := session.Stop(); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "KEDR stopped.")
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while a target is loaded")
	return cmd
}

func newStatus() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Say whether modules are being watched, and which",
		Example: "  kedr status",
		Args:    exactArgs(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			s, err := openSession()
			if errors.Is(err, session.ErrNotRunning) {
				fmt.Fprintln(out, "KEDR status: not loaded")
				return nil
			}
			if err != nil {
				return err
			}
			defer s.Close()
			c, err := s.Capture(0)
			if err != nil {
				return err
			}
			var names []string
			status := "not loaded"
			for _, t := range s.Targets() {
				names = append(names, t.Name)
				if kernel.ModuleLoaded(t.Name) {
					status = "loaded"
				}
			}
			fmt.Fprintln(out, "KEDR status: loaded")
			fmt.Fprintf(out, "Target: %s\nTarget status: %s\n", strings.Join(names, ","), status)
			fmt.Fprintf(out, "Since: %s, %d probes, %d load(s), %d object(s) outstanding\n",
				s.Started().Format("2006-01-02 15:04:05"), s.Probes(), len(c.Loads), len(c.Objects))
			return nil
		},
	}
}

func newReport() *cobra.Command {
	var o outputFlags
	cmd := &cobra.Command{
		Use:   "report [MODULE]",
		Short: "Report what the watched modules have leaked so far",
		Long: `Report writes what the session that "kedr start" began has seen, also while it
goes on. Each load of a module is accounted for by itself. The exit status is
that of "kedr run".`,
		Example: `  kedr report hello_kernel
  kedr report --format json -o leaks.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("report: name one module, or none for all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			s, err := openSession()
			if err != nil {
				return err
			}
			defer s.Close()
			c, err := s.Capture(0)
			if err != nil {
				return err
			}
			reports := makeReports(c)
			if len(args) == 1 {
				name := leak.Name(args[0])
				reports = slices.DeleteFunc(reports, func(r *leak.Report) bool { return r.Target.Name != name })
				if len(reports) == 0 {
					return usage("module %s is not being watched: see kedr status", name)
				}
			}
			return o.write(cmd.OutOrStdout(), reports)
		},
	}
	o.register(cmd)
	return cmd
}
