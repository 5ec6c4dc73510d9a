package machine

import (
	"bufio"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// answers plays the emulator's monitor: to each command the answers in their order, then
// what is left of them, and the end.
func answers(t *testing.T, theirs *os.File, greeting string, to map[string][]string) (asked chan []string) {
	t.Helper()
	c, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	asked = make(chan []string, 1)
	go func() {
		defer c.Close()
		var commands []string
		defer func() { asked <- commands }()
		c.Write([]byte(greeting))
		for in := bufio.NewScanner(c); in.Scan(); {
			command := strings.Split(in.Text(), `"`)[3]
			commands = append(commands, command)
			list := to[command]
			if len(list) == 0 {
				list = []string{`{"return":{}}`}
			} else {
				to[command] = list[1:]
			}
			if list[0] == "" {
				return
			}
			c.Write([]byte(list[0] + "\n"))
		}
	}()
	return asked
}

func TestMigrate(t *testing.T) {
	const (
		greeting  = `{"QMP": {"version": {}, "capabilities": ["oob"]}}` + "\n"
		completed = `{"return":{}} {"event":"MIGRATION","data":{"status":"active"}} {"event":"STOP"} {"event":"MIGRATION","data":{"status":"completed"}}`
		failed    = `{"return":{}} {"event":"MIGRATION","data":{"status":"failed"}}`
		refused   = `{"error":{"class":"GenericError","desc":"Migration is not finalized yet"}}`
	)
	all := []string{"qmp_capabilities", "migrate-set-capabilities", "migrate-set-parameters", "stop", "getfd", "migrate", "cont"}
	for _, test := range []struct {
		name, greeting string
		answers        map[string][]string
		want           string // in the error
		dead           bool   // the machine does not work on
		asked          []string
	}{
		{"completed", greeting, map[string][]string{"migrate": {completed}}, "", false, all},
		{"not yet", greeting, map[string][]string{"migrate": {completed}, "cont": {refused, refused}}, "", false, append(append([]string{}, all...), "cont", "cont")},
		{"failed", greeting, map[string][]string{"migrate": {failed}}, "could not write", false, all},
		{"refused", greeting, map[string][]string{"migrate": {refused}}, "not finalized", true, all[:6]},
		{"gone", greeting, map[string][]string{"migrate": {""}}, "EOF", true, all[:6]},
		{"not a monitor", "hello\n", nil, "invalid character", true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			ours, theirs, err := socketPair()
			if err != nil {
				t.Fatal(err)
			}
			asked := answers(t, theirs, test.greeting, test.answers)
			file, err := os.Create(filepath.Join(t.TempDir(), "state"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			err = migrate(ours, file)
			ours.Close()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if errors.Is(err, errSleep) != test.dead {
				t.Errorf("error %v: that the machine does not work on is %v", err, !test.dead)
			}
			if d := cmp.Diff(test.asked, <-asked); d != "" {
				t.Errorf("commands differ (-want +got):\n%s", d)
			}
		})
	}
}

func TestTidy(t *testing.T) {
	b := &bed{dir: t.TempDir()}
	now := time.Now()
	for name, f := range map[string]struct {
		size int64
		age  time.Duration
	}{
		"a.state": {600 << 20, time.Minute}, "b.state": {300 << 20, 2 * time.Minute}, "c.state": {300 << 20, 3 * time.Minute},
		"new-1": {1, time.Minute}, "new-2": {1, 2 * time.Hour},
	} {
		path := filepath.Join(b.dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, f.size); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-f.age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.tidy(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if d := cmp.Diff([]string{"a.state", "b.state", "new-1"}, got); d != "" {
		t.Errorf("files differ (-want +got):\n%s", d)
	}
}
