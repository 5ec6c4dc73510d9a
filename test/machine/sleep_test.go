//go:build machine

package machine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ownCache makes a cache that has the kernels of the user's, and no machine asleep yet.
func ownCache(t *testing.T) (env, machines string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadDir(filepath.Join(cache, "kedr"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "kedr"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, e := range theirs {
		if e.Name() == "machines" {
			continue
		}
		if err := os.Symlink(filepath.Join(cache, "kedr", e.Name()), filepath.Join(dir, "kedr", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return "XDG_CACHE_HOME=" + dir, filepath.Join(dir, "kedr", "machines")
}

// A kernel boots once: what comes after wakes from what was kept, knows the time, and has
// random numbers of its own. What can't wake boots again.
func TestSleep(t *testing.T) {
	for _, k := range []string{kernels[0], "6.1/i386"} {
		t.Run(strings.ReplaceAll(k, "/", "-"), func(t *testing.T) {
			env, machines := ownCache(t)
			seen := make(map[string]bool)
			var state os.FileInfo
			for i, step := range []struct {
				name  string
				spoil func(name string) error
				boots bool
			}{
				{"the first", nil, true},
				{"the second", nil, false},
				{"the third", nil, false},
				{"cut", func(name string) error { return os.Truncate(name, 30<<20) }, true},
				{"after that", nil, false},
				{"no state at all", func(name string) error { return os.WriteFile(name, []byte("hello"), 0o600) }, true},
				{"and after that", nil, false},
			} {
				if step.spoil != nil {
					if err := step.spoil(filepath.Join(machines, state.Name())); err != nil {
						t.Fatal(err)
					}
				}
				o := run(t, []string{env}, "vm", "exec", "--kernel", k, "--", "/bin/sh", "-c", "date +%s; od -An -tx8 -N16 /dev/urandom")
				f := strings.Fields(o.Stdout)
				if o.Status != 0 || len(f) != 3 {
					t.Fatalf("%s: status %d, output %q %q", step.name, o.Status, o.Stdout, o.Stderr)
				}
				if now, err := strconv.ParseInt(f[0], 10, 64); err != nil || time.Since(time.Unix(now, 0)).Abs() > time.Minute {
					t.Errorf("%s: its time is %v, err %v", step.name, time.Unix(now, 0), err)
				}
				if seen[f[1]+f[2]] {
					t.Errorf("%s: the same random numbers as before", step.name)
				}
				seen[f[1]+f[2]] = true
				entries, err := os.ReadDir(machines)
				if err != nil || len(entries) != 1 {
					t.Fatalf("%s: %v, %v: want one file", step.name, entries, err)
				}
				now, err := entries[0].Info()
				if err != nil {
					t.Fatal(err)
				}
				if now.Mode().Perm() != 0o600 {
					t.Errorf("%s: mode %v", step.name, now.Mode())
				}
				if booted := i == 0 || !os.SameFile(state, now); booted != step.boots {
					t.Errorf("%s: that it booted is %v", step.name, booted)
				}
				state = now
			}
			nothingLeft(t)
		})
	}
}
