package distro

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Build builds the modules in a directory for a kernel, by make with args: on the
// host, or in a build root where the kernel's build tools don't run on the host.
func (s *Store) Build(ctx context.Context, k Kernel, dir string, args []string, stdout, stderr io.Writer) error {
	// The build root knows a directory by its one true name.
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return fmt.Errorf("what is to be built: %w", err)
	}
	headers, err := s.Headers(ctx, k)
	if err != nil {
		return err
	}
	foreign, err := s.Foreign(ctx, k)
	if err != nil {
		return err
	}
	if k.Arch() == I386 {
		// make asks what machine this is, and would take it for 64 bits.
		args = append(args, "ARCH=i386")
	}
	args = append([]string{"--no-print-directory", fmt.Sprintf("-j%d", runtime.NumCPU()), "-C", headers, "M=" + dir}, args...)
	cmd := exec.CommandContext(ctx, "make", args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// Killed, make would leave its compilers at work.
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = buildEnv(os.Environ())
	if foreign == nil {
		if _, err := exec.LookPath("pahole"); err != nil {
			// Headers that come with the kernel's types (Debian's 6.12) have make write
			// the module's own, by pahole; nobody here needs these.
			cmd.Args = append(cmd.Args, "CONFIG_DEBUG_INFO_BTF_MODULES=")
		}
		err = cmd.Run()
	} else {
		var root string
		if root, err = s.buildRoot(ctx, k, foreign); err != nil {
			return err
		}
		err = runIn(cmd, root, s.headers(k), dir)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("make is not installed: apt install make gcc")
	case err != nil:
		return fmt.Errorf("building %s for %s: %w", dir, k.Release, err)
	}
	return nil
}

// buildEnv is an environment without what another make has put there for its own
// children: its jobs are not ours.
func buildEnv(env []string) []string {
	var out []string
	for _, kv := range env {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "MAKEFLAGS", "MFLAGS", "MAKELEVEL":
		default:
			out = append(out, kv)
		}
	}
	return out
}

// ForeignError says that a kernel's build tools can't run on this host.
type ForeignError struct {
	Release, Needs, Has string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("the build tools of %s need glibc %s, and this host has %s", e.Release, e.Needs, e.Has)
}

// Foreign says why the build tools of a kernel, whose headers are at hand, do
// not run on this host; nil: they do.
func (s *Store) Foreign(ctx context.Context, k Kernel) (*ForeignError, error) {
	needs, err := libraryNeed(filepath.Join(s.headers(k), "usr/lib"))
	if err != nil {
		return nil, fmt.Errorf("the build tools of %s: %w", k.Release, err)
	}
	out, err := output(ctx, "getconf", "GNU_LIBC_VERSION")
	if err != nil {
		return nil, fmt.Errorf("which C library this host has: %w", err)
	}
	has := strings.TrimPrefix(strings.TrimSpace(out), "glibc ")
	if CompareReleases(needs, has) <= 0 {
		return nil, nil
	}
	return &ForeignError{Release: k.Release, Needs: needs, Has: has}, nil
}

// libraryNeed is the newest version of the C library that any program below a
// directory needs. All are looked at: modpost and objtool are small programs that
// start modpost.real-lsb-64 and objtool.real-x86, and only these need a new one.
func libraryNeed(dir string) (string, error) {
	newest := ""
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode()&0o111 == 0 {
			return err
		}
		f, err := elf.Open(name)
		if err != nil {
			return nil // a script
		}
		defer f.Close()
		needs, err := f.DynamicVersionNeeds()
		if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
			return fmt.Errorf("%s: %w", name, err)
		}
		var versions []string
		for _, n := range needs {
			for _, v := range n.Needs {
				versions = append(versions, v.Dep)
			}
		}
		newest = newestLibrary(append(versions, "GLIBC_"+newest))
		return nil
	})
	return newest, err
}

// libraryRE leaves out GLIBC_PRIVATE and GLIBC_ABI_DT_RELR.
var libraryRE = regexp.MustCompile(`^GLIBC_(\d+(?:\.\d+)*)$`)

func newestLibrary(versions []string) string {
	newest := ""
	for _, v := range versions {
		if m := libraryRE.FindStringSubmatch(v); m != nil && (newest == "" || CompareReleases(m[1], newest) > 0) {
			newest = m[1]
		}
	}
	return newest
}
