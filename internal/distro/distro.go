// Package distro gets kernels of the distribution, and what modules for them are
// built with, by the distribution's own package tools: without installing them,
// without touching the host's apt, and once.
package distro

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Kernel is an unpacked kernel package.
type Kernel struct {
	Release string // as uname -r has it there
	Dir     string // where the package is unpacked
}

// Image is the kernel's boot file; Linux 7's packages have it among the modules.
func (k Kernel) Image() string {
	boot := filepath.Join(k.Dir, "boot", "vmlinuz-"+k.Release)
	if _, err := os.Stat(boot); err != nil {
		if other := filepath.Join(k.Modules(), "vmlinuz"); exists(other) {
			return other
		}
	}
	return boot
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// Arch is the architecture of a package.
type Arch string

// The architectures there are.
const (
	AMD64 Arch = "amd64"
	I386  Arch = "i386"
)

// flavours are the ordinary kernels of each; a release of another names it before this.
var flavours = map[Arch]string{AMD64: "-amd64", I386: "-686-pae"}

// archOf is the architecture of a release or of a version, "6.1/i386".
func archOf(version string) Arch {
	if strings.HasSuffix(version, "/"+string(I386)) || strings.HasSuffix(version, flavours[I386]) {
		return I386
	}
	return AMD64
}

// Arch is what the kernel was built for.
func (k Kernel) Arch() Arch { return archOf(k.Release) }

// Modules is its directory of modules.
func (k Kernel) Modules() string {
	for _, lib := range []string{"lib/modules", "usr/lib/modules"} {
		dir := filepath.Join(k.Dir, lib, k.Release)
		if exists(dir) {
			return dir
		}
	}
	return filepath.Join(k.Dir, "lib/modules", k.Release)
}

// Store is the cache of kernels.
type Store struct {
	Dir string
	// Log is told of everything that is downloaded, a line each.
	Log func(format string, args ...any)
}

// ErrNoKernel says that a kernel is neither cached nor to be had.
var ErrNoKernel = errors.New("no such kernel")

// NewStore returns the user's store, below the cache directory.
func NewStore(log func(string, ...any)) (*Store, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("no place for kernels: %w: set XDG_CACHE_HOME or HOME", err)
	}
	return &Store{Dir: filepath.Join(dir, "kedr"), Log: log}, nil
}

func (s *Store) kernels() string { return filepath.Join(s.Dir, "kernels") }

// Cached lists the kernels at hand, newest first.
func (s *Store) Cached() ([]Kernel, error) {
	entries, err := os.ReadDir(s.kernels())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Kernel
	for _, e := range entries {
		k := Kernel{Release: e.Name(), Dir: filepath.Join(s.kernels(), e.Name())}
		if exists(k.Image()) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b Kernel) int { return CompareReleases(b.Release, a.Release) })
	return out, nil
}

// Find returns the newest kernel at hand of a version: "6.1" or a full release.
func (s *Store) Find(version string) (Kernel, bool, error) {
	all, err := s.Cached()
	if err != nil {
		return Kernel{}, false, err
	}
	for _, k := range all {
		if matches(k.Release, version) {
			return k, true, nil
		}
	}
	return Kernel{}, false, nil
}

var releaseRE = regexp.MustCompile(`^(\d+(?:\.\d+)*)(.*?)((?:-cloud|-rt)?)(-amd64|-686-pae)$`)

// matches says whether a release is of a version: "6.1", "6.1-cloud", "6.1/i386" or itself.
func matches(release, version string) bool {
	if release == version {
		return true
	}
	m := releaseRE.FindStringSubmatch(release)
	if m == nil || archOf(release) != archOf(version) {
		return false
	}
	version = strings.TrimSuffix(version, "/"+string(I386))
	number, kind, _ := strings.Cut(version, "-")
	if kind != "" {
		kind = "-" + kind
	}
	return m[3] == kind && (m[1] == number || strings.HasPrefix(m[1], number+"."))
}

// Version is the shortest that names a release: "6.1", "6.1-cloud", "6.1/i386".
func Version(release string) string {
	m := releaseRE.FindStringSubmatch(release)
	if m == nil {
		return release
	}
	series := strings.SplitN(m[1], ".", 3)
	version := strings.Join(series[:min(2, len(series))], ".") + m[3]
	if archOf(release) == I386 {
		version += "/" + string(I386)
	}
	return version
}

// versionRE leaves what is after the number to the package lists.
var versionRE = regexp.MustCompile(`^\d+(\.\d+)*([-+~][0-9A-Za-z.+~-]*)?(/i386)?$`)

// IsVersion says whether a text can be the version of a kernel, as Fetch takes it.
func IsVersion(s string) bool { return len(s) <= 100 && versionRE.MatchString(s) }

var digits = regexp.MustCompile(`\d+`)

// CompareReleases orders releases by their numbers, left to right.
func CompareReleases(a, b string) int {
	x, y := digits.FindAllString(a, -1), digits.FindAllString(b, -1)
	for i := range min(len(x), len(y)) {
		n, _ := strconv.ParseUint(x[i], 10, 64)
		m, _ := strconv.ParseUint(y[i], 10, 64)
		if n != m {
			if n < m {
				return -1
			}
			return 1
		}
	}
	return strings.Compare(a, b)
}

// Fetch returns the newest kernel of a version, from the cache or, where that
// has none, from the distribution. With refresh the distribution is asked even so.
func (s *Store) Fetch(ctx context.Context, version string, refresh bool) (Kernel, error) {
	if k, ok, err := s.Find(version); err != nil || ok && !refresh {
		return k, err
	}
	a, err := s.apt(archOf(version))
	if err != nil {
		return Kernel{}, err
	}
	name, err := a.findImage(ctx, version)
	if err != nil {
		return Kernel{}, err
	}
	release := strings.TrimPrefix(name, "linux-image-")
	k := Kernel{Release: release, Dir: filepath.Join(s.kernels(), release)}
	if exists(k.Image()) {
		return k, nil
	}
	deps, err := a.depends(ctx, name)
	if err != nil {
		return Kernel{}, err
	}
	image := set{a, append([]string{name}, imageParts(deps, release)...)}
	err = s.unpack(ctx, k.Dir, []set{image}, func(dir string) error {
		k := Kernel{Release: release, Dir: dir}
		if _, err := os.Stat(k.Image()); err != nil {
			return fmt.Errorf("package %s holds no kernel: %w", name, err)
		}
		return depmod(ctx, k)
	})
	return k, err
}

// imageParts chooses, of what a kernel image depends on, the packages that hold
// the kernel: Linux 7's is in linux-binary-, linux-modules- and linux-base-RELEASE.
func imageParts(deps []string, release string) []string {
	var parts []string
	for _, d := range deps {
		if strings.HasPrefix(d, "linux-") && strings.HasSuffix(d, "-"+release) {
			parts = append(parts, d)
		}
	}
	return parts
}

// depmod makes the index that modprobe needs, where the tool is installed.
func depmod(ctx context.Context, k Kernel) error {
	tool, err := lookTool("depmod")
	if err != nil {
		return nil // kedr itself does without; a workload's modprobe will say so
	}
	base := k.Dir
	if strings.Contains(k.Modules(), "/usr/lib/") {
		base = filepath.Join(k.Dir, "usr")
	}
	return run(ctx, tool, "-b", base, k.Release)
}

// lookTool finds a tool of the system's, also where sbin is not in the path.
func lookTool(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// set is packages, and where they are to be had.
type set struct {
	apt      *apt
	packages []string
}

// unpack downloads packages and puts their files into dir, all or nothing.
func (s *Store) unpack(ctx context.Context, dir string, sets []set, finish func(tmp string) error) error {
	return s.make(dir, func(tmp, root string) error {
		for i, set := range sets {
			files, err := set.apt.download(ctx, filepath.Join(tmp, fmt.Sprintf("debs%d", i)), set.packages)
			if err != nil {
				return err
			}
			if err := unpackInto(ctx, root, files); err != nil {
				return err
			}
		}
		return finish(root)
	})
}

// make has a directory filled, all or nothing; tmp is gone afterwards.
func (s *Store) make(dir string, fill func(tmp, root string) error) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("no place for %s: %w", filepath.Base(dir), err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".unpacking-*")
	if err != nil {
		return fmt.Errorf("no place for %s: %w", filepath.Base(dir), err)
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := fill(tmp, root); err != nil {
		return err
	}
	if err := os.Rename(root, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// unpackInto puts the files of packages into a root.
func unpackInto(ctx context.Context, root string, debs []string) error {
	for _, deb := range debs {
		if err := unpackOne(ctx, root, deb); err != nil {
			return fmt.Errorf("unpacking %s: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

// unpackOne does what dpkg-deb -x does, but for one thing: what is a link to a directory in
// the root, and a directory in the package, stays a link.
func unpackOne(ctx context.Context, root, deb string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	from := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var said strings.Builder
	from.Stdout, from.Stderr = w, &said
	err = from.Start()
	w.Close()
	if err != nil {
		return err
	}
	to := exec.CommandContext(ctx, "tar", "-xp", "--keep-directory-symlink", "-C", root)
	to.Stdin = r
	_, err = outputOf(ctx, to)
	r.Close() // or dpkg-deb would wait for somebody to read
	unpacked := from.Wait()
	switch {
	case interrupted(unpacked):
		return context.Canceled
	case err != nil && unpacked != nil:
		return fmt.Errorf("%w (dpkg-deb: %s)", err, lastWords(said.String()))
	case unpacked != nil:
		return fmt.Errorf("dpkg-deb: %w: %s", unpacked, lastWords(said.String()))
	}
	return err
}

// run runs a tool, and tells its own last words when it fails.
func run(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	return outputOf(ctx, exec.CommandContext(ctx, name, args...))
}

func outputOf(ctx context.Context, cmd *exec.Cmd) (string, error) {
	name := filepath.Base(cmd.Path)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if interrupted(err) {
		return "", context.Canceled
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not installed: kernels come by Debian's package tools", name)
	}
	return "", fmt.Errorf("%s: %w: %s", name, err, lastWords(stderr.String()))
}

// interrupted tells that a tool was ended by the terminal's Ctrl-C, which goes to all at once:
// ours may still be under way.
func interrupted(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGINT
}

// farewells are what tools end with when they have told before what was wrong.
var farewells = []string{
	"E: Some index files failed to download",
	"E: mmdebstrap failed to run",
	"I: ",
	"tar: Exiting with failure status",
}

// lastWords is the last line that tells why a tool failed.
func lastWords(stderr string) string {
	const most = 300
	words := ""
	for line := range strings.Lines(stderr) {
		line = strings.TrimRight(line, " \r\n")
		continued := strings.HasPrefix(line, " ") // what apt says more of the line before
		if line != "" && !continued && !slices.ContainsFunc(farewells, func(f string) bool { return strings.HasPrefix(line, f) }) {
			words = line
		}
	}
	if len(words) > most {
		words = strings.ToValidUTF8(words[:most], "") + "..."
	}
	return words
}
