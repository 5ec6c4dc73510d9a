package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kedr/internal/compare"
	"kedr/internal/report"
)

func newDiff() *cobra.Command {
	var format string
	var names []string
	for _, f := range report.Diffs {
		names = append(names, f.Name)
	}
	cmd := &cobra.Command{
		Use:   "diff [flags] OLD.json NEW.json",
		Short: "Say what one report has that an earlier one has not",
		Long: `Diff compares two reports that were saved in the format json, and says which
findings are new, which are fixed, and which are there in both, with other counts or
the same. Findings are known again by their fingerprints: the functions of the module on
the call stack and the kind of object, but no lines or addresses, so that the reports may
be of different builds and kernels. One of the files may be -, the standard input.

A finding counts as it does in the load that had the most of it. Findings of NEW.json
that are suppressed are left out.

Exit status:
  0  nothing is new
  1  something is new, or there is more of it
  2  wrong usage, or a file that can't be read
  4  a report is incomplete: what is new may have been there, what is fixed may not be`,
		Example: `  kedr diff before.json after.json
  kedr diff --format json before.json after.json
  git show main:leaks.json | kedr diff - leaks.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) != 2:
				return usage("diff: name two reports, OLD.json and NEW.json: see kedr diff --help")
			case args[0] == "-" && args[1] == "-":
				return usage("diff: only one of the two can be the standard input")
			}
			return nil
		},
		ValidArgsFunction: cobra.FixedCompletions([]cobra.Completion{"json"}, cobra.ShellCompDirectiveFilterFileExt),
		RunE: func(cmd *cobra.Command, args []string) error {
			i := slices.Index(names, format)
			if i < 0 {
				return usage("--format=%s: must be %s", format, strings.Join(names, " or "))
			}
			return diff(cmd, args[0], args[1], report.Diffs[i])
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "format of the comparison: "+strings.Join(names, ", "))
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func diff(cmd *cobra.Command, oldFile, newFile string, format report.DiffFormat) error {
	before, err := readReports(cmd, oldFile)
	if err != nil {
		return usage("%w", err)
	}
	after, err := readReports(cmd, newFile)
	if err != nil {
		return usage("%w", err)
	}
	d, err := compare.Reports(oldFile, newFile, before, after)
	if err != nil {
		return usage("%w", err)
	}
	if err := format.Write(cmd.OutOrStdout(), d); err != nil {
		return fmt.Errorf("writing the comparison: %w", err)
	}
	switch {
	case d.Uncertain():
		return &statusError{status: exitIncomplete}
	case d.Worse():
		return &statusError{status: exitFound}
	}
	return nil
}
