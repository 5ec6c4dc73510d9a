package distro

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// recipe says what a build root is made of.
type recipe struct {
	suite    string
	packages []string
}

func (r recipe) text() string {
	return strings.Join(append([]string{r.suite}, r.packages...), "\n") + "\n"
}

func parseRecipe(text string) (recipe, bool) {
	f := strings.Fields(text)
	if len(f) < 2 {
		return recipe{}, false
	}
	return recipe{f[0], f[1:]}, true
}

// name is the build root's: kernels that need the same share one.
func (r recipe) name() string {
	return r.suite + "-" + digest(r.text())
}

// digest tells texts apart in names of directories.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// newRecipe makes a recipe of a suite and of what headers and their build tools
// depend on: the compiler, libraries, pahole.
func newRecipe(suite string, deps []string) recipe {
	for _, s := range []string{"-backports", "-security", "-updates"} {
		suite = strings.TrimSuffix(suite, s)
	}
	r := recipe{suite, []string{"binutils", "make"}}
	for _, d := range deps {
		if !strings.HasPrefix(d, "linux-") {
			r.packages = append(r.packages, d)
		}
	}
	slices.Sort(r.packages)
	r.packages = slices.Compact(r.packages)
	return r
}

// recipe finds out what modules for a kernel are built with, and keeps it with the
// headers: archives forget.
func (s *Store) recipe(ctx context.Context, k Kernel) (recipe, error) {
	kept := filepath.Join(s.headers(k), "build-depends")
	if b, err := os.ReadFile(kept); err == nil {
		if r, ok := parseRecipe(string(b)); ok {
			return r, nil
		}
	}
	a, err := s.apt(k.Arch())
	if err != nil {
		return recipe{}, err
	}
	headers := "linux-headers-" + k.Release
	suite, err := a.offers(ctx, headers)
	if err != nil {
		return recipe{}, err
	}
	if suite == "" {
		return recipe{}, fmt.Errorf("%s is of one of the host's own suites, whose C library is not installed: upgrade the host", headers)
	}
	deps, err := a.depends(ctx, headers)
	if err != nil {
		return recipe{}, err
	}
	all := deps
	for _, d := range deps {
		if strings.HasPrefix(d, "linux-kbuild-") || strings.HasPrefix(d, "linux-compiler-") {
			more, err := a.depends(ctx, d)
			if err != nil {
				return recipe{}, err
			}
			all = append(all, more...)
		}
	}
	r := newRecipe(suite, all)
	return r, os.WriteFile(kept, []byte(r.text()), 0o644)
}

// buildRoot returns the root file system in which a kernel's build tools run: a
// small system of the suite it comes from, made once.
func (s *Store) buildRoot(ctx context.Context, k Kernel, why error) (string, error) {
	r, err := s.recipe(ctx, k)
	if err != nil {
		return "", fmt.Errorf("%w: %w", why, err)
	}
	root := filepath.Join(s.Dir, "buildroot", r.name())
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("%w: they run in a build root, which takes root's rights: run kedr vm build as root", why)
	}
	if exists(root) {
		return root, nil
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", fmt.Errorf("%w: a build root is made by mmdebstrap, which is not installed: apt install mmdebstrap", why)
	}
	ms, err := hostMirrors(ctx)
	if err != nil {
		return "", err
	}
	list, err := sources(ms, r.suite)
	if err != nil {
		return "", err
	}
	settings, err := output(ctx, "apt-config", "dump")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return "", fmt.Errorf("no place for a build root: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(root), ".making-*")
	if err != nil {
		return "", fmt.Errorf("no place for a build root: %w", err)
	}
	defer os.RemoveAll(tmp)
	write := func(name, text string) error { return os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o644) }
	if err := errors.Join(write("sources.list", list), write("apt.conf", acquireSettings(settings))); err != nil {
		return "", err
	}
	s.Log("%v: making a build root of %s, once (mmdebstrap)", why, r.suite)
	made := filepath.Join(tmp, "root")
	args := []string{"--quiet", "--mode=root", "--format=directory", "--variant=essential", "--architectures=" + string(AMD64),
		"--aptopt=" + filepath.Join(tmp, "apt.conf"), "--include=" + strings.Join(r.packages, ",")}
	for _, dir := range []string{"doc", "locale", "man"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	fill := func() error {
		cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, r.suite, made, filepath.Join(tmp, "sources.list"))...)
		// What it mounts is seen by itself only, and goes with it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		_, err := outputOf(ctx, cmd)
		return err
	}
	err = fill()
	if less := withoutSecurity(list); err != nil && less != list && ctx.Err() == nil {
		s.Log("making a build root of %s: %v: doing without the security updates", r.suite, err)
		if err := errors.Join(os.RemoveAll(made), write("sources.list", less)); err != nil {
			return "", err
		}
		err = fill()
	}
	if err != nil {
		return "", fmt.Errorf("making a build root of %s: %w", r.suite, err)
	}
	if err := os.Rename(made, root); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return root, nil
}

// acquireRE is of the host's apt settings those on how to reach a mirror.
var acquireRE = regexp.MustCompile(`(?m)^Acquire::(?:https?|Retries|Check-Date|Check-Valid-Until)\b.*\n`)

func acquireSettings(dump string) string { return strings.Join(acquireRE.FindAllString(dump, -1), "") }

// runIn runs a command in another root, where it finds the named directories in
// their own places; the last of them it may write to.
func runIn(cmd *exec.Cmd, root string, dirs ...string) error {
	done := make(chan error)
	go func() {
		// A mount namespace is a thread's. This one ends with the goroutine, for it is
		// never unlocked; its mounts go with the last process in it.
		runtime.LockOSThread()
		inside, err := enter(root, dirs)
		if err == nil {
			cmd.Path, cmd.Err, cmd.Dir = "/usr/bin/"+cmd.Args[0], nil, "/"
			cmd.Env = append(cmd.Env, "PATH=/usr/sbin:/usr/bin", "TMPDIR=/tmp", "LC_ALL=C")
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: inside}
			err = cmd.Run()
		}
		done <- err
	}()
	return <-done
}

// enter puts a root together from a build root, read-only, and directories of the
// host's, in a new mount namespace.
func enter(root string, dirs []string) (string, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return "", fmt.Errorf("mounts of one's own: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("mounts of one's own: %w", err)
	}
	inside := filepath.Join(root, "mnt")
	if err := unix.Mount("tmpfs", inside, "tmpfs", 0, "mode=0755"); err != nil {
		return "", fmt.Errorf("mounting at %s: %w", inside, err)
	}
	bind := func(from, at string, readonly bool) error {
		to := filepath.Join(inside, at)
		err := os.MkdirAll(to, 0o755)
		if err == nil {
			err = unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
		}
		if err == nil && readonly {
			err = unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
		if err != nil {
			return fmt.Errorf("mounting %s in the build root: %w", from, err)
		}
		return nil
	}
	for _, name := range []string{"bin", "lib", "lib64", "sbin"} {
		if to, err := os.Readlink(filepath.Join(root, name)); err == nil {
			if err := os.Symlink(to, filepath.Join(inside, name)); err != nil {
				return "", err
			}
		}
	}
	for _, name := range []string{"usr", "etc", "var"} {
		if err := bind(filepath.Join(root, name), name, true); err != nil {
			return "", err
		}
	}
	for _, name := range []string{"/dev", "/proc"} {
		if err := bind(name, name, false); err != nil {
			return "", err
		}
	}
	if err := os.Mkdir(filepath.Join(inside, "tmp"), 0o1777); err != nil {
		return "", err
	}
	for i, dir := range dirs {
		if err := bind(dir, dir, i < len(dirs)-1); err != nil {
			return "", err
		}
	}
	return inside, nil
}
