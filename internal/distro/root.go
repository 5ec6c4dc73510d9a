package distro

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// workloads are the programs that a machine of another architecture has for a workload:
// those of the host don't run there.
var workloads = []string{"?essential", "dosfstools", "e2fsprogs", "iproute2", "kmod", "mount", "procps", "util-linux", "xfsprogs"}

// Root returns a root file system of programs that run on a kernel where those of the
// host don't; "" where they do. It is unpacked, not installed, for that would take to run
// its programs, which not every host does; what they would have configured is the host's.
func (s *Store) Root(ctx context.Context, k Kernel) (string, error) {
	if k.Arch() == AMD64 {
		return "", nil
	}
	sum := sha256.Sum256([]byte(strings.Join(workloads, "\n")))
	dir := filepath.Join(s.Dir, "programs", string(k.Arch())+"-"+hex.EncodeToString(sum[:4]))
	if exists(dir) {
		return dir, nil
	}
	a, err := s.apt(k.Arch())
	if err != nil {
		return "", err
	}
	if _, err := a.offers(ctx, workloads[1]); err != nil {
		return "", err
	}
	packages, size, err := a.closure(ctx, workloads)
	if err != nil {
		return "", err
	}
	s.Log("the programs of this host don't run on %s: fetching those of %s, once: %d packages (%s)",
		k.Release, k.Arch(), len(packages), megabytes(fmt.Sprint(size)))
	err = s.make(dir, func(tmp, root string) error {
		// As all of Debian's have been since bookworm: older packages have files in either place.
		for _, name := range []string{"bin", "lib", "sbin"} {
			if err := errors.Join(os.MkdirAll(filepath.Join(root, "usr", name), 0o755), os.Symlink("usr/"+name, filepath.Join(root, name))); err != nil {
				return err
			}
		}
		files, err := a.fetch(ctx, filepath.Join(tmp, "debs"), packages)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := unpackInto(ctx, f, root); err != nil {
				return fmt.Errorf("unpacking %s: %w", filepath.Base(f), err)
			}
		}
		return nil
	})
	return dir, err
}

// unpackInto puts a package's files into a root; what is a link there to a directory, and a
// directory in the package, stays a link, which dpkg-deb -x would replace.
func unpackInto(ctx context.Context, deb, root string) error {
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
	to := exec.CommandContext(ctx, "tar", "-x", "--keep-directory-symlink", "-C", root)
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

// closure lists some packages, and all that they depend on; and their size, in bytes.
func (a *apt) closure(ctx context.Context, packages []string) (names []string, size int64, err error) {
	args := append(slices.Clone(a.args), "--no-install-recommends", "--print-uris", "-qq", "install")
	out, err := output(ctx, "apt-get", append(args, packages...)...)
	if err != nil {
		return nil, 0, fmt.Errorf("finding %s: %w", strings.Join(packages, ", "), err)
	}
	names, size = parseURIs(out)
	if len(names) == 0 {
		return nil, 0, fmt.Errorf("finding %s: apt-get names no packages", strings.Join(packages, ", "))
	}
	return names, size, nil
}

// parseURIs reads apt's lines of an address, a file's name, and its size.
func parseURIs(out string) (names []string, size int64) {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 3 || !strings.HasPrefix(f[0], "'") {
			continue
		}
		name, _, _ := strings.Cut(f[1], "_")
		names = append(names, name)
		var n int64
		if _, err := fmt.Sscan(f[2], &n); err == nil && n > 0 {
			size += n
		}
	}
	return names, size
}
