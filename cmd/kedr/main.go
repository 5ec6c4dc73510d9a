// Kedr finds what a Linux kernel module obtains and never gives back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"kedr/internal/machine"
	"kedr/internal/probe"
)

// Exit statuses, as "kedr run --help" has them.
const (
	exitClean      = 0
	exitFound      = 1
	exitUsage      = 2
	exitFailed     = 3
	exitIncomplete = 4
	exitCrashed    = 5
)

// statusError ends the program with a status of its own.
type statusError struct {
	status int
	err    error // nil: all has been said
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// usage is an error in how kedr was called.
func usage(format string, args ...any) error {
	return &statusError{status: exitUsage, err: fmt.Errorf(format, args...)}
}

func main() {
	if machine.IsGuest() {
		machine.Guest()
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitClean
	}
	var se *statusError
	status := exitFailed
	if errors.As(err, &se) {
		status = se.status
		if se.err == nil {
			return status
		}
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	fmt.Fprintf(stderr, "kedr: %v\n", err)
	return status
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "kedr",
		Short: "Find what a kernel module obtains and never gives back",
		Long: `Kedr watches a Linux kernel module from its first instruction to its unload,
and reports what it obtained from the kernel and never gave back: process,
address, size, and the call stack down to the source line.

Exit status:
  0  done; nothing leaked
  1  leaks or wrong frees found, or what a check is for
  2  wrong usage
  3  could not be done; the message says what to do about it
  4  the result is incomplete: events were lost, or a function was not watched
  5  the kernel crashed or hung in the machine; its oops is printed`,
		Example: `  kedr run hello-kernel.ko          # load, unload, report; in a machine where need be
  kedr start hello-kernel.ko        # watch from here on, whoever loads the module
  kedr report hello_kernel
  kedr stop`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("unknown command %q: see kedr --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	verbose := root.PersistentFlags().BoolP("verbose", "v", false, "also print what only developers of kedr want to read, as the verifier's log")
	root.PersistentPreRun = func(*cobra.Command, []string) {
		if *verbose {
			probe.Trace = func(format string, args ...any) { fmt.Fprintf(os.Stderr, "kedr: "+format+"\n", args...) }
		}
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w: see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(newRun(), newTrace(), newStart(), newStop(), newRestart(), newStatus(), newReport(), newDiff(), newClear(), newFlush(), newCatalog(), newPlan(), newMatrix(), newDoctor(), newVM(), newMan())
	addCompletions(root)
	return root
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && (v == "" || v == "(devel)") {
			v = s.Value[:12]
		}
	}
	return v
}

// exactArgs is cobra's, with our exit status.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s: %s: see %s --help", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

// progress shows one line that is written over; on a terminal only.
type progress struct{ w *os.File }

func newProgress() *progress {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return &progress{}
	}
	return &progress{w: os.Stderr}
}

func (p *progress) show(s string) {
	if p.w == nil {
		return
	}
	if width, _, err := term.GetSize(int(p.w.Fd())); err == nil && len(s) >= width && width > 1 {
		s = s[:width-1]
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", s)
}

func (p *progress) clear() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// say writes a line of talk, above the progress line.
func (p *progress) say(format string, args ...any) {
	p.clear()
	fmt.Fprintf(os.Stderr, "kedr: "+format+"\n", args...)
}
