package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kedr/internal/source"
)

// sourceFlags say what reports show of the module's source.
type sourceFlags struct {
	show  string
	given []string // FROM=TO

	roots []source.Root // what they come to, once checked
	read  *source.Tree
}

// sourceShows are the values of --source.
var sourceShows = []string{"lines", "none"}

func (f *sourceFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.show, "source", sourceShows[0], "what to show of the source, where it can be read: "+strings.Join(sourceShows, ", "))
	cmd.Flags().StringArrayVar(&f.given, "source-root", nil, "source that the module's debug information has below a directory is below another now: `FROM=TO`; may be repeated")
	cmd.RegisterFlagCompletionFunc("source", cobra.FixedCompletions(sourceShows, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("source-root", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
}

// check finds mistakes before any work is done.
func (f *sourceFlags) check() error {
	if !slices.Contains(sourceShows, f.show) {
		return usage("--source=%s: must be %s", f.show, strings.Join(sourceShows, " or "))
	}
	for _, s := range f.given {
		r, err := source.ParseRoot(s)
		if err != nil {
			return usage("--source-root: %w", err)
		}
		f.roots = append(f.roots, r)
	}
	return nil
}

// tree is where source is read, for all outputs; nil: it is not to be shown.
func (f *sourceFlags) tree(dir string) *source.Tree {
	if f.show == "lines" && f.read == nil {
		f.read = source.New(dir, f.roots...)
	}
	return f.read
}
