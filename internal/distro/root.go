package distro

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	dir := filepath.Join(s.Dir, "programs", string(k.Arch())+"-"+digest(strings.Join(workloads, "\n")))
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
	all, err := a.closure(ctx, workloads)
	if err != nil {
		return "", err
	}
	var packages []string
	var size int64
	for _, p := range all {
		packages = append(packages, p.name)
		size += p.size
	}
	s.Log("the programs of this host don't run on %s: fetching those of %s, once: %d packages (%s)",
		k.Release, k.Arch(), len(packages), megabytes(size))
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
		return unpackInto(ctx, root, files)
	})
	return dir, err
}

// closure finds some packages, and all that they depend on.
func (a *apt) closure(ctx context.Context, packages []string) ([]offer, error) {
	args := append(slices.Clone(a.args), "--no-install-recommends", "--print-uris", "-qq", "install")
	out, err := output(ctx, "apt-get", append(args, packages...)...)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", strings.Join(packages, ", "), err)
	}
	all := parseURIs(out)
	if len(all) == 0 {
		return nil, fmt.Errorf("finding %s: apt-get names no packages", strings.Join(packages, ", "))
	}
	return all, nil
}
