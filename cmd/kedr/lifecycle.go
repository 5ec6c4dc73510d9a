package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kedr/internal/kernel"
	"kedr/internal/leak"
	"kedr/internal/session"
)

func newRestart() *cobra.Command {
	return &cobra.Command{
		Use:   "restart",
		Short: "Stop, and start anew for the same modules with the same flags",
		Long: `Restart ends the session and starts another one for the same files and with the
same flags: what was seen so far is gone, and the modules' files are read anew. If
one of the files can't be read any more, the session goes on as it is.

Exit status:
  0  stopped and started
  2  wrong usage
  3  refused, as a target is loaded or no session goes on, or could not be done`,
		Example: "  make && kedr restart && insmod mydriver.ko",
		Args:    exactArgs(0, "takes no arguments"),
		RunE:    func(cmd *cobra.Command, args []string) error { return restart(cmd) },
	}
}

func restart(cmd *cobra.Command) error {
	s, err := openSession()
	if err != nil {
		return err
	}
	opts, loaded := s.Options(), s.Loaded()
	var paths []string
	for _, t := range s.Targets() {
		paths = append(paths, t.Path)
	}
	if err := s.Close(); err != nil {
		return err
	}
	if len(loaded) > 0 {
		return &refusedError{"restarted", loaded}
	}
	// All that may fail is tried before anything is stopped.
	k, err := kernel.RunningWith(opts.BTF)
	if err != nil {
		return err
	}
	targets, err := findTargets(k, paths)
	if err != nil {
		return err
	}
	if err := hostCanWatch(k, targets); err != nil {
		return refusal("restarted", err)
	}
	c, err := (&catalogFlag{files: opts.Catalogs}).load()
	if err != nil {
		return err
	}
	if err := halt(cmd.OutOrStdout()); err != nil {
		return err
	}
	return begin(cmd, k, c, opts, targets)
}

// halt ends the session, and says so.
func halt(out io.Writer) error {
	fmt.Fprintln(out, "Stopping KEDR...")
	if err := session.Stop(); err != nil {
		return err
	}
	fmt.Fprintln(out, "KEDR stopped.")
	return nil
}

func newStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say whether modules are being watched, and which",
		Long: `Status says whether a session goes on and, if so, of which targets, whether each
is loaded, and its totals over all its loads.

Exit status:
  0  said, whether a session goes on or not
  2  wrong usage
  3  could not be found out`,
		Example: "  kedr status",
		Args:    exactArgs(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := openSession()
			if errors.Is(err, session.ErrNotRunning) {
				fmt.Fprintln(cmd.OutOrStdout(), "KEDR status: not loaded")
				return nil
			}
			if err != nil {
				return err
			}
			defer s.Close()
			c, err := s.Capture(0, false)
			if err != nil {
				return err
			}
			printStatus(cmd.OutOrStdout(), s, c)
			return nil
		},
	}
}

func printStatus(out io.Writer, s *session.Session, c *session.Capture) {
	loaded := s.Loaded()
	state := func(is bool) string {
		if is {
			return "loaded"
		}
		return "not loaded"
	}
	var names []string
	for _, t := range s.Targets() {
		names = append(names, t.Name)
	}
	fmt.Fprintf(out, "KEDR status: loaded\nTarget: %s\nTarget status: %s\n", strings.Join(names, ","), state(len(loaded) > 0))
	outstanding := make(map[uint32]int)
	for _, o := range c.Objects {
		outstanding[o.Load]++
	}
	for i, name := range names {
		var loads, leaks int
		var allocations, wrong uint64
		for _, l := range c.Loads {
			if l.Target == i {
				loads++
				leaks += outstanding[l.ID]
				allocations += l.Allocations
				wrong += l.UnallocatedFree + l.Mismatched
			}
		}
		fmt.Fprintf(out, "%s: %s, loads: %d, allocations: %d, possible leaks: %d, wrong releases: %d\n",
			name, state(slices.Contains(loaded, name)), loads, allocations, leaks, wrong)
	}
	const layout = "2006-01-02 15:04:05"
	fmt.Fprintf(out, "Since: %s, %d probes\n", s.Started().Format(layout), s.Probes())
	if !s.Cleared().IsZero() {
		fmt.Fprintf(out, "Cleared: %s\n", s.Cleared().Format(layout))
	}
}

func newClear() *cobra.Command {
	return &cobra.Command{
		Use:   "clear [MODULE]",
		Short: "Forget what was seen so far, and go on watching",
		Long: `Clear forgets all allocations, wrong releases and totals of the session, or those of
one MODULE. What is forgotten is unknown from then on: if the module releases it later,
that is an unallocated free. A target may be loaded meanwhile, and at work: each of its
calls is forgotten as a whole or counted as a whole.`,
		Example: `  kedr clear
  kedr clear hello_kernel`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("clear: name one module, or none for all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := openSession()
			if err != nil {
				return err
			}
			defer s.Close()
			name := ""
			if len(args) == 1 {
				if name = leak.Name(args[0]); !watched(s, name) {
					return usage("module %s is not being watched: see kedr status", name)
				}
			}
			return s.Clear(name)
		},
	}
}

func watched(s *session.Session, name string) bool {
	return slices.ContainsFunc(s.Targets(), func(t session.Target) bool { return t.Name == name })
}

func newFlush() *cobra.Command {
	return &cobra.Command{
		Use:   "flush",
		Short: "Do nothing: the files are always current",
		Long: `Flush is there for scripts that did it with the first KEDR, whose files showed what
was known at the last unload or flush. The files of today's and "kedr report" show what
is known when they are read.`,
		Example: "  kedr flush",
		Args:    exactArgs(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := root(); err != nil {
				return err
			}
			if !session.Running() {
				return session.ErrNotRunning
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Nothing to flush: the files in "+session.FilesDir+" are always current.")
			return nil
		},
	}
}
