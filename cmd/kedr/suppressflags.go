package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"kedr/internal/compare"
	"kedr/internal/leak"
	"kedr/internal/report"
	"kedr/internal/suppress"
)

// suppressFlags are the flags about findings that don't count, of commands that report.
type suppressFlags struct {
	files    []string
	generate string // file; "": don't, "-": to the standard output
	baseline string

	mu    sync.Mutex // of what follows: machines that run side by side end at any time
	set   *suppress.Set
	known *compare.Baseline
}

func (s *suppressFlags) register(cmd *cobra.Command) {
	s.registerFiles(cmd)
	cmd.Flags().StringVar(&s.generate, "gen-suppressions", "", "write suppressions of all that was found to `FILE`; all, or -, is the standard output, after the report")
	cmd.RegisterFlagCompletionFunc("gen-suppressions", cobra.FixedCompletions([]cobra.Completion{"all"}, cobra.ShellCompDirectiveDefault))
}

// registerFiles registers what is read.
func (s *suppressFlags) registerFiles(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&s.files, "suppressions", nil, "leave out what matches a pattern of `FILE` (see docs/suppressions.md); may be given several times")
	fl.StringVar(&s.baseline, "baseline", "", "leave out what is in `FILE` already, an earlier report in the format json")
	cmd.MarkFlagFilename("suppressions", "supp")
	cmd.MarkFlagFilename("baseline", "json")
}

// checkFiles reads the files, and finds mistakes before any work is done.
func (s *suppressFlags) checkFiles(cmd *cobra.Command) error {
	var list []*suppress.Suppression
	for _, name := range s.files {
		blocks, err := readSuppressions(name)
		if err != nil {
			return usage("--suppressions: %w", err)
		}
		list = append(list, blocks...)
	}
	if len(s.files) > 0 {
		s.set = suppress.NewSet(list)
	}
	if s.baseline != "" {
		reports, err := readReports(cmd, s.baseline)
		if err != nil {
			return usage("--baseline: %w", err)
		}
		s.known = compare.NewBaseline(s.baseline, reports)
	}
	return nil
}

// check does that, and looks at where suppressions are written to.
func (s *suppressFlags) check(cmd *cobra.Command, out *outputFlags) error {
	if err := s.checkFiles(cmd); err != nil {
		return err
	}
	// As Valgrind's users write it.
	if s.generate == "all" || s.generate == "yes" {
		s.generate = "-"
	}
	switch s.generate {
	case "":
		return nil
	case "-":
	default:
		return s.checkGenerated(cmd, out)
	}
	for _, o := range out.outputs {
		if o.file == "-" && o.format.Name != "text" {
			return usage("--gen-suppressions: the %s goes to the standard output, too: give one of them a file (--gen-suppressions=FILE)", o.format.Name)
		}
	}
	return nil
}

// checkGenerated sees to it that what is generated overwrites nothing else.
func (s *suppressFlags) checkGenerated(cmd *cobra.Command, out *outputFlags) error {
	if info, err := os.Stat(s.generate); err == nil {
		for _, name := range append([]string{s.baseline}, s.files...) {
			if other, err := os.Stat(name); err == nil && os.SameFile(info, other) {
				return usage("--gen-suppressions: %s would be overwritten, which is read: give another file, and add to the one from that", s.generate)
			}
		}
	}
	all := outputFlags{outputs: append(slices.Clone(out.outputs), output{report.Formats[0], s.generate})}
	return all.checkFiles(cmd.OutOrStdout())
}

func readSuppressions(name string) ([]*suppress.Suppression, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return suppress.Parse(f, name)
}

// mark marks what does not count.
func (s *suppressFlags) mark(reports []*leak.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range reports {
		if s.set != nil {
			s.set.Apply(r)
		}
		if s.known != nil {
			s.known.Apply(r)
		}
	}
}

// unused names the suppressions that no report had a use for.
func (s *suppressFlags) unused(stderr io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		return
	}
	for _, u := range s.set.Unused() {
		fmt.Fprintf(stderr, "kedr: %s:%d: unused suppression %q\n", strings.Map(printable, u.File), u.Line, u.Name)
	}
}

// write writes the suppressions that were asked for.
func (s *suppressFlags) write(stdout io.Writer, reports []*leak.Report) error {
	if s.generate == "" {
		return nil
	}
	if s.generate == "-" {
		return suppress.Generate(stdout, reports)
	}
	f, err := os.Create(s.generate)
	if err != nil {
		return err
	}
	return errors.Join(suppress.Generate(f, reports), f.Close())
}

// report writes what counts of the reports, and returns the exit status of that.
func (s *suppressFlags) report(cmd *cobra.Command, out *outputFlags, reports []*leak.Report) error {
	s.mark(reports)
	s.unused(cmd.ErrOrStderr())
	status := out.write(cmd.OutOrStdout(), reports)
	if err := s.write(cmd.OutOrStdout(), reports); err != nil {
		return fmt.Errorf("writing suppressions: %w", err)
	}
	return status
}
