//go:build machine

package machine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"kedr/test/pages"
)

// wrapper is the kedr of a document's reader. That a test loads modules into the host's
// own kernel, where that is the one they were built for, is not what its owner expects.
const wrapper = `#!/bin/sh
verb=$1
case $verb in
run|trace) shift; exec "$KEDR" "$verb" --vm=always "$@";;
esac
exec "$KEDR" "$@"
`

// TestPages runs the command lines of the documents, and holds what they print against
// what the documents show. Each script makes what its documents take for granted; what
// root does, is done in a machine.
func TestPages(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	testscript.RunT(inTurn{t}, testscript.Params{
		Dir:         "testdata/pages",
		WorkdirRoot: t.TempDir(), // which nothingLeft passes over
		Setup: func(env *testscript.Env) error {
			bin := filepath.Join(env.WorkDir, ".bin")
			env.Setenv("MODULES", os.Getenv("KEDR_MODULES"))
			env.Setenv("KEDR", program)
			env.Setenv("KEDR_386", program+"-386")
			env.Setenv("XDG_CACHE_HOME", cache)
			env.Setenv("HOME", home)
			env.Setenv("TMPDIR", os.TempDir())
			// mkfs and the like are not in every user's.
			env.Setenv("PATH", bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
			if err := os.Mkdir(bin, 0o777); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(bin, "kedr"), []byte(wrapper), 0o777)
		},
		Cmds: pages.Commands(root, func(script string) []string {
			// Where kedr need not be told that this is the place.
			return []string{program, "vm", "exec", "--kernel", "6.1", "--", "env", "PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"), "sh", script}
		}),
	})
	nothingLeft(t)
}

// inTurn runs scripts one after the other: two emulated machines starve each other.
type inTurn struct{ *testing.T }

func (inTurn) Parallel()     {}
func (inTurn) Verbose() bool { return testing.Verbose() }

func (t inTurn) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(inTurn{t}) })
}
