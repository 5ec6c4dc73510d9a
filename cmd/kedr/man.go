package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"kedr/internal/machine"
	"kedr/internal/manual"
	"kedr/internal/session"
)

// newMan is for packagers, and for the Makefile; it is hidden, for who wants to read a page
// says man kedr.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages",
		Hidden: true,
		Long: `Man writes a manual page for each command into DIR, which it makes. Their date is
SOURCE_DATE_EPOCH's, else that of the commit that kedr was built from.`,
		Example: "  kedr man man1 && man -l man1/kedr-run.1",
		Args:    exactArgs(1, "takes one DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := manDate()
			if err != nil {
				return err
			}
			return writeMan(cmd.Root(), args[0], date)
		},
	}
}

func writeMan(root *cobra.Command, dir string, date time.Time) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("writing the manual pages: %w", err)
	}
	m := newManual(date)
	for _, c := range manual.Commands(root) {
		var b bytes.Buffer
		if err := m.Man(&b, c); err != nil {
			return err
		}
		name := fmt.Sprintf("%s.%d", manual.Name(c), manual.Section)
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o666); err != nil {
			return fmt.Errorf("writing the manual pages: %w", err)
		}
	}
	return nil
}

// manDate is the same for everyone who builds the same source.
func manDate() (time.Time, error) {
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		n, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil || n < 0 {
			return time.Time{}, usage("SOURCE_DATE_EPOCH=%s: must be seconds since 1970", epoch)
		}
		return time.Unix(n, 0), nil
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}, errors.New("this kedr does not know when its source was made: set SOURCE_DATE_EPOCH")
	}
	for _, s := range info.Settings {
		if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("this kedr does not know when its source was made: set SOURCE_DATE_EPOCH")
}

// newManual is what the help of a single command does not say.
func newManual(date time.Time) *manual.Manual {
	return &manual.Manual{
		Version: version(),
		Date:    date,
		Exit: []manual.Item{
			{Name: "0", Text: "done"},
			{Name: "2", Text: "wrong usage"},
			{Name: "3", Text: "could not be done; the message says what to do about it"},
		},
		Files: []manual.Item{
			{Name: session.FilesDir + "/MODULE/info", Text: "totals of the session that kedr start began, one set a load"},
			{Name: session.FilesDir + "/MODULE/possible_leaks", Text: "what MODULE has not given back yet"},
			{Name: session.FilesDir + "/MODULE/unallocated_frees", Text: "what it has released that it had not obtained"},
			{Name: session.FilesDir + "-session", Text: "the session itself: its programs and its account"},
			{Name: "~/.cache/kedr", Text: "kernels, headers and build roots that were fetched, in the user's cache directory; nothing but time is lost with it"},
		},
		Environment: []manual.Item{
			{Name: "XDG_CACHE_HOME", Text: "the user's cache directory, in place of ~/.cache"},
			{Name: machine.ProgramEnv, Text: "the kedr that runs in machines with 32-bit kernels, if it is not the kedr-386 beside kedr itself"},
			{Name: "NO_COLOR", Text: "if it is set, nothing is coloured"},
			{Name: "TMPDIR", Text: "where a machine's files are while it runs, in place of /tmp"},
			{Name: "SOURCE_DATE_EPOCH", Text: "the date of the manual pages that kedr man writes"},
		},
	}
}
