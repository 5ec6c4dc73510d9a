package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kedr/internal/distro"
	"kedr/internal/machine"
)

func newVM() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vm",
		Short: "Kernels and disposable machines",
		Long: `The commands of vm fetch kernels of the distribution and what modules for them are
built with, without installing anything, and run programs of the host in machines with
these kernels.

Without KVM a kernel boots once: what a machine is like then is kept in
~/.cache/kedr/machines, 120 MB each and 1 GiB at most, and later machines wake from it.
To boot anew, remove these files.`,
		Example: `  kedr vm fetch 6.1 6.12
  kedr vm exec --kernel 6.12 -- uname -a
  go test -exec 'kedr vm exec --kernel 6.1 --' ./...`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("vm: unknown command %q: see kedr vm --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newVMKernels(), newVMFetch(), newVMHeaders(), newVMBuild(), newVMExec())
	return cmd
}

func talkingStore() (*distro.Store, *progress, error) {
	p := newProgress()
	s, err := distro.NewStore(p.say)
	return s, p, err
}

func newVMKernels() *cobra.Command {
	return &cobra.Command{
		Use:   "kernels",
		Short: "List the kernels at hand",
		Long: `Kernels lists the kernels at hand: the VERSION that names each where one is asked
for (the newest of that version, if there are several), its release, and where it is.
A flavour is part of the version: 6.1-cloud, 6.1-rt. What is not at hand is fetched
when it is asked for; those that were tried are 5.10, 6.1 with both flavours, 6.12
and 7.3.`,
		Example: `  kedr vm kernels
  kedr vm exec --kernel 6.1-rt -- uname -v`,
		Args: exactArgs(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, _, err := talkingStore()
			if err != nil {
				return err
			}
			kernels, err := s.Cached()
			if err != nil {
				return err
			}
			for _, k := range kernels {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\t%s\n", distro.Version(k.Release), k.Release, k.Dir)
			}
			if len(kernels) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "kedr: no kernels at hand: fetch one, as in kedr vm fetch 6.1")
			}
			return nil
		},
	}
}

func newVMFetch() *cobra.Command {
	var refresh bool
	cmd := &cobra.Command{
		Use:   "fetch VERSION...",
		Short: "Fetch kernels of the distribution, without installing them",
		Long: `Fetch gets the newest kernel package of each VERSION (7.3, 6.1, 6.1-cloud, 6.1-rt,
or a full release) from the mirror that the host's apt uses, checks its signature, and
unpacks it into the user's cache directory. What is there is not fetched again.
Beside the host's own suites, those from bullseye (5.10) to trixie-backports (7.3)
are looked into.`,
		Example: `  kedr vm fetch 6.1 6.12 7.3
  kedr vm fetch --refresh 6.12`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("vm fetch: which VERSION? as in kedr vm fetch 6.1")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, p, err := talkingStore()
			if err != nil {
				return err
			}
			defer p.clear()
			for _, v := range args {
				k, err := s.Fetch(cmd.Context(), v, refresh)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", k.Release)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&refresh, "refresh", false, "look for a newer one of that version")
	return cmd
}

func newVMHeaders() *cobra.Command {
	return &cobra.Command{
		Use:   "headers VERSION",
		Short: "Print the directory in which modules for a kernel are built",
		Long: `Headers fetches a kernel's header packages, where they are not at hand yet, and
prints the directory to give to make -C. Where its build tools don't run on this
host, it says so: kedr vm build builds modules even then.`,
		Example: `  make -C $(kedr vm headers 6.12) M=$PWD modules`,
		Args:    exactArgs(1, "takes one VERSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, p, err := talkingStore()
			if err != nil {
				return err
			}
			defer p.clear()
			k, err := s.Fetch(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			dir, err := s.Headers(cmd.Context(), k)
			if err != nil {
				return err
			}
			foreign, err := s.Foreign(cmd.Context(), k)
			if err != nil {
				return err
			}
			if foreign != nil {
				p.say("%v: build with kedr vm build --kernel %s", foreign, args[0])
			}
			fmt.Fprintln(cmd.OutOrStdout(), dir)
			return nil
		},
	}
}

func newVMBuild() *cobra.Command {
	var version string
	cmd := &cobra.Command{
		Use:   "build [flags] DIR [-- ARG...]",
		Short: "Build the modules in a directory for a kernel",
		Long: `Build runs make for the modules in DIR with a kernel's headers, which it fetches
where they are not at hand; make gets each ARG. Where the kernel's build tools need
a newer C library than this host has, make runs in a build root: a small system of
that kernel's suite, made once by mmdebstrap, which takes root's rights. DIR is
then all that make sees of the host.`,
		Example: `  kedr vm build --kernel 7.3 .
  kedr vm build --kernel 6.12 . -- W=1
  kedr vm build --kernel 6.1 . -- clean`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || cmd.ArgsLenAtDash() == 0 {
				return usage("vm build: which DIR? as in kedr vm build --kernel 7.3 .")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, p, err := talkingStore()
			if err != nil {
				return err
			}
			defer p.clear()
			k, err := chooseKernel(cmd.Context(), s, version)
			if err != nil {
				return err
			}
			return s.Build(cmd.Context(), k, args[0], args[1:], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&version, "kernel", "", "`VERSION` of the kernel (6.1, 6.1-cloud, or a full release); the newest at hand by default")
	return cmd
}

func newVMExec() *cobra.Command {
	var version string
	var cpus, memory int
	var icount bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "exec [flags] -- CMD [ARG...]",
		Short: "Run a command in a disposable machine",
		Long: `Exec runs CMD, a program of the host, in a machine with another kernel. The host's
files are all there, but nothing that is written reaches the host.

Exit status: that of CMD; 2 for wrong usage, 3 if it could not be run, 5 if the kernel
crashed or hung.`,
		Example: `  kedr vm exec --kernel 6.12 -- uname -r
  go test -exec 'kedr vm exec --kernel 6.1 --' ./...`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("vm exec: which CMD? as in kedr vm exec -- uname -r")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, p, err := talkingStore()
			if err != nil {
				return err
			}
			defer p.clear()
			k, err := chooseKernel(cmd.Context(), s, version)
			if err != nil {
				return err
			}
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			root, err := s.Root(cmd.Context(), k)
			if err != nil {
				return err
			}
			res, err := machine.Run(cmd.Context(), machine.Config{
				Kernel: k, HostRoot: true, ArchRoot: root, Argv: args, Env: os.Environ(), Dir: dir,
				Stdout: clearing{p, cmd.OutOrStdout()}, Stderr: clearing{p, cmd.ErrOrStderr()},
				Progress: p.show, CPUs: cpus, Icount: icount, Memory: memory, Timeout: timeout, CacheDir: s.Dir,
			})
			p.clear()
			if err != nil {
				return machineError(err)
			}
			if res.ExitStatus != 0 {
				return &statusError{status: res.ExitStatus}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&version, "kernel", "", "`VERSION` of the kernel (6.1, 6.1-cloud, or a full release); the newest at hand by default")
	cmd.Flags().IntVar(&cpus, "cpus", 2, "number of CPUs")
	cmd.Flags().BoolVar(&icount, "icount", false, "one CPU, whose clock goes by the instruction, a nanosecond each: for benchmarks")
	cmd.Flags().IntVar(&memory, "memory", 1024, "memory, in `MiB`")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "end the machine after this time; 0: never")
	return cmd
}

// clearing takes the progress line away before other output.
type clearing struct {
	p *progress
	w interface{ Write([]byte) (int, error) }
}

func (c clearing) Write(b []byte) (int, error) {
	c.p.clear()
	return c.w.Write(b)
}
