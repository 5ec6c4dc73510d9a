package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kedr/internal/catalog"
	"kedr/internal/distro"
	"kedr/internal/kernel"
	"kedr/internal/session"
)

// What a shell offers when the user asks it to complete a word. A completion that can't be
// found out is none, and never an error.

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// addCompletions gives all commands their completions, but for the flags whose values
// stand where they are made.
func addCompletions(root *cobra.Command) {
	addCompletionCommands(root)
	for path, f := range map[string]completion{
		"run": completeModule, "trace": completeModule,
		"start": completeModules, "plan": completeModules,
		"report": completeWatched, "clear": completeWatched,
		"catalog":  completeKind,
		"vm fetch": completeKernels, "vm headers": completeKernels,
		"vm build": completeDir, "man": completeDir,
	} {
		if cmd, rest, err := root.Find(strings.Fields(path)); err == nil && len(rest) == 0 {
			cmd.ValidArgsFunction = f
		}
	}
	addFlagCompletions(root)
}

// addCompletionCommands adds cobra's commands that print scripts for shells.
func addCompletionCommands(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	examples := map[string]string{
		"completion": "  source <(kedr completion bash)",
		"bash":       "  source <(kedr completion bash)\n  kedr completion bash >/etc/bash_completion.d/kedr",
		"zsh":        "  source <(kedr completion zsh)\n  kedr completion zsh >/usr/local/share/zsh/site-functions/_kedr",
		"fish":       "  kedr completion fish | source\n  kedr completion fish >~/.config/fish/completions/kedr.fish",
	}
	cmd, _, err := root.Find([]string{"completion"})
	if err != nil {
		return
	}
	cmd.Example = examples[cmd.Name()]
	for _, c := range cmd.Commands() {
		if c.Example = examples[c.Name()]; c.Example == "" {
			cmd.RemoveCommand(c) // a shell of another system
		}
	}
}

func addFlagCompletions(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if _, ok := cmd.GetFlagCompletionFunc(f.Name); ok {
			return
		}
		if c := flagCompletion(f); c != nil {
			cmd.RegisterFlagCompletionFunc(f.Name, c)
		}
	})
	for _, c := range cmd.Commands() {
		addFlagCompletions(c)
	}
}

// flagCompletion goes by what the help calls a flag's value. nil: any file.
func flagCompletion(f *pflag.Flag) completion {
	value, _ := pflag.UnquoteUsage(f)
	switch {
	case f.Name == "kernel":
		return completeKernel
	case f.Name == "catalog":
		return cobra.FixedCompletions([]string{"toml"}, cobra.ShellCompDirectiveFilterFileExt)
	case strings.HasSuffix(value, "FILE"):
		return nil
	case value == "DIR":
		return completeDir
	}
	return cobra.NoFileCompletions
}

func completeDir(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// tried are the versions that a machine's kernel may have without being at hand.
var tried = []string{"5.10", "6.1", "6.1-cloud", "6.1-rt", "6.1/i386", "6.12", "7.3"}

// completeKernel completes a version, or the last one of several with commas between.
func completeKernel(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	versions := slices.Clone(tried)
	if store, err := distro.NewStore(nil); err == nil {
		kernels, _ := store.Cached()
		for _, k := range kernels {
			versions = append(versions, distro.Version(k.Release), k.Release)
		}
	}
	slices.SortFunc(versions, distro.CompareReleases)
	before := word[:strings.LastIndexByte(word, ',')+1]
	var list []string
	for _, v := range slices.Compact(versions) {
		if strings.HasPrefix(before+v, word) {
			list = append(list, before+v)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

func completeKernels(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if cmd.Name() == "headers" && len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeKernel(cmd, args, word)
}

func completeKind(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	c, err := catalog.Default()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []string
	for _, k := range kindNames(c) {
		if strings.HasPrefix(k, word) && !slices.Contains(args, k) {
			list = append(list, k)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// completeModule completes the first word: what follows it are parameters, and after the
// dashes comes a program with words of its own.
func completeModule(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch {
	// cobra adds dashes of its own: ArgsLenAtDash does not tell.
	case slices.Contains(os.Args[:len(os.Args)-1], "--"):
		return nil, cobra.ShellCompDirectiveDefault
	case len(args) > 0:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if attach := cmd.Flags().Lookup("attach"); attach != nil && attach.Changed {
		return completeWatched(cmd, args, word)
	}
	return completeModules(cmd, args, word)
}

// completeModules completes names of installed modules, module files and directories.
func completeModules(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	var list []string
	directive := cobra.ShellCompDirectiveNoFileComp
	files, _ := filepath.Glob(word + "*")
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.IsDir() {
			// One word after which more of it follows.
			list = append(list, f+"/")
			directive |= cobra.ShellCompDirectiveNoSpace
		} else if _, ext, ok := strings.Cut(filepath.Base(f), ".ko"); ok && (ext == "" || ext[0] == '.') {
			list = append(list, f)
		}
	}
	// With no letter given, these would be some thousands.
	if word != "" && !strings.ContainsRune(word, '/') {
		for _, m := range kernel.Installed(modulesDir(cmd)) {
			if strings.HasPrefix(m, word) {
				list = append(list, m)
			}
		}
	}
	return list, directive
}

// modulesDir is where the modules of the kernel are that was asked for, or runs.
func modulesDir(cmd *cobra.Command) string {
	if f := cmd.Flags().Lookup("kernel"); f != nil && f.Changed {
		store, err := distro.NewStore(nil)
		if err != nil {
			return ""
		}
		k, ok, err := store.Find(f.Value.String())
		if err != nil || !ok {
			return ""
		}
		return k.Modules()
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return "/lib/modules/" + strings.TrimSpace(string(release))
}

// completeWatched completes names of modules that a session watches.
func completeWatched(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []string
	entries, _ := os.ReadDir(session.FilesDir)
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), word) {
			list = append(list, e.Name())
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
