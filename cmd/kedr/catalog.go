package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"kedr/internal/catalog"
	"kedr/internal/kernel"
	"kedr/internal/plan"
	"kedr/internal/session"
	"kedr/internal/target"
)

// catalogFlag is --catalog.
type catalogFlag struct{ files []string }

func (f *catalogFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.files, "catalog", nil, "`FILE` with further functions (TOML, see docs/catalog.md); may be given several times")
	cmd.MarkFlagFilename("catalog", "toml")
}

// maxCatalog bounds what is read of a user's file.
const maxCatalog = 1 << 20

// load returns kedr's own catalog with the user's files.
func (f *catalogFlag) load() (*catalog.Catalog, error) {
	c, err := catalog.Default()
	if err != nil {
		return nil, err
	}
	for _, name := range f.files {
		text, err := readCatalog(name)
		if err != nil {
			return nil, &statusError{status: exitUsage, err: err}
		}
		if err := c.Add(filepath.Base(name), string(text)); err != nil {
			return nil, &statusError{status: exitUsage, err: err}
		}
	}
	return c, nil
}

// paths are the user's files, for whoever reads them later and elsewhere.
func (f *catalogFlag) paths() ([]string, error) {
	var paths []string
	for _, name := range f.files {
		p, err := filepath.Abs(name)
		if err != nil {
			return nil, fmt.Errorf("--catalog: %w", err)
		}
		paths = append(paths, p)
	}
	return paths, nil
}

func readCatalog(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--catalog: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCatalog+1))
	if err != nil {
		return nil, fmt.Errorf("--catalog: %w", err)
	}
	if len(text) > maxCatalog {
		return nil, fmt.Errorf("--catalog: %s is larger than %d bytes: is it a catalog?", name, maxCatalog)
	}
	return text, nil
}

func newCatalog() *cobra.Command {
	var cat catalogFlag
	var format string
	cmd := &cobra.Command{
		Use:   "catalog [KIND...]",
		Short: "Print the functions that kedr knows",
		Long: `Catalog prints the kinds of objects that kedr follows: by which functions a
module obtains them, by which they are released, and under which names kernels
have had these. Drivers' own allocators are added with --catalog FILE.`,
		Example: `  kedr catalog
  kedr catalog slab percpu
  kedr catalog --catalog mydriver.toml mybuffer
  kedr catalog check`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usage("--format=%s: must be text or json", format)
			}
			c, err := cat.load()
			if err != nil {
				return err
			}
			kinds := c.Kinds
			if len(args) > 0 {
				kinds = nil
				for _, name := range args {
					k, ok := c.Kind(name)
					if !ok {
						return usage("no kind %q: there are %s", name, strings.Join(kindNames(c), ", "))
					}
					kinds = append(kinds, *k)
				}
			}
			if format == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(catalogDocument(kinds))
			}
			return printCatalog(cmd.OutOrStdout(), kinds)
		},
	}
	cat.register(cmd)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.AddCommand(newCatalogCheck())
	return cmd
}

func kindNames(c *catalog.Catalog) []string {
	var names []string
	for _, k := range c.Kinds {
		names = append(names, k.Name)
	}
	return names
}

type catalogEntry struct {
	Kind     string   `json:"kind"`
	Role     string   `json:"role"` // "obtains" or "releases"
	Function string   `json:"function"`
	Symbols  []string `json:"symbols"`
	Size     string   `json:"size,omitempty"`
}

func catalogDocument(kinds []catalog.Kind) []catalogEntry {
	entries := []catalogEntry{}
	for _, k := range kinds {
		for _, f := range k.Obtains {
			entries = append(entries, catalogEntry{k.Name, "obtains", f.Name, f.Symbols, f.Size})
		}
		for _, f := range k.Releases {
			entries = append(entries, catalogEntry{Kind: k.Name, Role: "releases", Function: f.Name, Symbols: f.Symbols})
		}
	}
	return entries
}

func printCatalog(out io.Writer, kinds []catalog.Kind) error {
	var b strings.Builder
	for i, k := range kinds {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintln(&b, k.Name)
		for _, f := range k.Obtains {
			printFunction(&b, "obtains", f)
		}
		for _, f := range k.Releases {
			printFunction(&b, "releases", f)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printFunction wraps the names that a function has had.
func printFunction(b *strings.Builder, role string, f *catalog.Function) {
	const width = 96
	line := fmt.Sprintf("  %-8s  %-24s", role, f.Name)
	names := f.Symbols
	if len(names) == 0 {
		names = []string{"(tracepoint " + strings.Join(f.Via, ", ") + ")"}
	}
	if len(names) == 1 && names[0] == f.Name {
		fmt.Fprintln(b, strings.TrimRight(line, " "))
		return
	}
	for i, n := range names {
		if i < len(names)-1 {
			n += ","
		}
		if len(line)+1+len(n) > width {
			fmt.Fprintln(b, line)
			line = strings.Repeat(" ", 36)
		}
		line += " " + n
	}
	fmt.Fprintln(b, line)
}

func newCatalogCheck() *cobra.Command {
	var cat catalogFlag
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Hold the catalog against the running kernel",
		Long: `Check looks each function of the catalog up in the running kernel's types (BTF):
whether it is there, under which name, and whether its parameters are there by
name and are what the catalog takes them for.

Exit status: 0 if all that is there fits, 1 if something does not. A function
that this kernel does not have is listed, and is no error.`,
		Example: `  kedr catalog check
  kedr catalog check --catalog mydriver.toml
  kedr vm exec --kernel 6.12 -- kedr catalog check`,
		Args: exactArgs(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cat.load()
			if err != nil {
				return err
			}
			k, err := kernel.Running()
			if err != nil {
				return err
			}
			if done, err := session.Learn(k, nil); err == nil {
				defer done()
			}
			checked, err := plan.Check(c, k)
			if err != nil {
				return err
			}
			return printChecked(cmd.OutOrStdout(), k.Release, checked)
		},
	}
	cat.register(cmd)
	return cmd
}

func printChecked(out io.Writer, release string, checked []plan.Checked) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	var fits, missing, limits, wrong int
	for _, f := range checked {
		state := "fits"
		switch {
		case f.Symbol == "":
			state = "not in this kernel"
			missing++
		case errors.Is(f.Err, plan.ErrStructure):
			state = "can't be watched in this kernel: " + f.Err.Error()
			limits++
		case errors.Is(f.Err, kernel.ErrNoLayout):
			state = "needs debug information in the module: " + f.Err.Error()
			limits++
		case f.Err != nil:
			state = "does not fit: " + f.Err.Error()
			wrong++
		default:
			fits++
		}
		name := f.Symbol
		if name == "" {
			name = f.Function
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Kind, roleName(f.Role), name, state)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %d fit, %d do not, %d can't be watched here, %d are not in this kernel\n", release, fits, wrong, limits, missing)
	if wrong > 0 {
		return &statusError{status: exitFound}
	}
	return nil
}

func roleName(r plan.Role) string {
	if r == plan.Obtain {
		return "obtains"
	}
	return "releases"
}

func newPlan() *cobra.Command {
	var cat catalogFlag
	cmd := &cobra.Command{
		Use:   "plan MODULE...",
		Short: "Say what would be intercepted for a module, and how",
		Long: `Plan prints, for the running kernel, the probes that a session for these modules
would attach, what can't be watched and why, and which of the modules' imports
look like allocators that the catalog does not know: candidates for --catalog.`,
		Example: `  kedr plan hello-kernel.ko
  kedr plan --catalog mydriver.toml mydriver.ko
  kedr vm exec --kernel 6.12 -- kedr plan ext4`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("no MODULE given: see kedr plan --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cat.load()
			if err != nil {
				return err
			}
			k, err := kernel.Running()
			if err != nil {
				return err
			}
			var targets []*target.Module
			for _, a := range args {
				m, err := findTarget(k, a)
				if err != nil {
					return err
				}
				targets = append(targets, m)
			}
			// Who may not read the kernel's code sees what the file alone tells.
			if done, err := session.Learn(k, targets); err == nil {
				defer done()
			}
			p, err := plan.New(c, k, targets...)
			if errors.Is(err, kernel.ErrNoBTF) {
				return fmt.Errorf("%w (kedr vm exec --kernel 6.1 -- kedr plan ...)", err)
			}
			if err != nil {
				return err
			}
			return printPlan(cmd.OutOrStdout(), k.Release, p, c)
		},
	}
	cat.register(cmd)
	return cmd
}

func printPlan(out io.Writer, release string, p *plan.Plan, c *catalog.Catalog) error {
	names := make([]string, len(p.Targets))
	for i, t := range p.Targets {
		names[i] = t.Name
	}
	fmt.Fprintf(out, "%s on %s: %d functions to intercept\n\n", strings.Join(names, ", "), release, len(p.Probes))
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, pr := range p.Probes {
		why := strings.Join(pr.Imports, ", ")
		switch {
		case why == "":
			why = "released by others"
		case pr.CheckOnly:
			why += " (checked only)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\tfor %s\n", pr.Kind, roleName(pr.Role), pr.Symbol, pr.Mechanism, why)
	}
	for _, j := range p.Jumps {
		fmt.Fprintf(w, "jump\t%s\t%s\tkprobe\tin %s\n", roleName(j.Role), j.Symbol, j.Function)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, u := range p.Unwatched {
		fmt.Fprintf(out, "not watched: %s: %s\n", u.Function, u.Reason)
	}
	if unknown := p.Unknown(c); len(unknown) > 0 {
		slices.Sort(unknown)
		fmt.Fprintf(out, "\nThese imports look like allocators that the catalog does not know (see --catalog):\n")
		for _, u := range unknown {
			fmt.Fprintf(out, "  %s\n", u)
		}
	}
	return nil
}
