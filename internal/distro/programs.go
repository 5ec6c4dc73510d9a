package distro

import (
	"context"
	"path/filepath"
)

// Programs unpacks packages of a suite beside the host's own, once, and returns the
// directory: their programs run by the C library in it, if that is one of them. The
// directory has the first package's name.
func (s *Store) Programs(ctx context.Context, suite string, packages ...string) (string, error) {
	dir := filepath.Join(s.Dir, "programs", suite+"-"+packages[0])
	if exists(dir) {
		return dir, nil
	}
	a, err := s.apt(AMD64)
	if err != nil {
		return "", err
	}
	if err := a.update(ctx, suite); err != nil {
		return "", err
	}
	return dir, s.unpack(ctx, dir, []set{{a, packages}}, func(string) error { return nil })
}
