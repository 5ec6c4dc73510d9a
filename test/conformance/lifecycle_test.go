//go:build guest

package conformance

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"kedr/internal/kernel"
	"kedr/internal/probe"
)

// tell writes to a parameter of lifecycle.ko.
func tell(t *testing.T, parameter string, n int) {
	t.Helper()
	if err := os.WriteFile("/sys/module/lifecycle/parameters/"+parameter, []byte(strconv.Itoa(n)), 0); err != nil {
		t.Fatal(err)
	}
}

// refused checks that kedr says no, with that exit status and one line.
func refused(t *testing.T, status int, message string, args ...string) {
	t.Helper()
	o := kedr(t, args...)
	if o.status != status || !strings.Contains(o.stderr, message) || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 {
		t.Errorf("kedr %s: exit status %d, want %d; want %q in %q; %q",
			strings.Join(args, " "), o.status, status, message, o.stderr, o.stdout)
	}
}

// says checks that each of these is a line of what kedr status prints.
func says(t *testing.T, lines ...string) {
	t.Helper()
	out := must(t, program, "status")
	for _, l := range lines {
		if !strings.Contains("\n"+out, "\n"+l+"\n") {
			t.Errorf("status does not say %q:\n%s", l, out)
		}
	}
}

// ends unloads modules and stops the session when the test is over.
func ends(t *testing.T, names ...string) {
	t.Cleanup(func() {
		for _, name := range names {
			if kernel.ModuleLoaded(name) {
				must(t, "rmmod", name)
			}
		}
		kedr(t, "stop", "--force") // unless it is over already
		for _, name := range names {
			nothingLeft(t, name)
		}
	})
}

// TestLifecycle is a session from its start to its end, with all that is refused on
// the way.
func TestLifecycle(t *testing.T) {
	ends(t, "producer", "lifecycle")
	says(t, "KEDR status: not loaded")
	for _, verb := range []string{"stop", "restart", "clear", "flush", "report"} {
		refused(t, 3, "service is not running: to start it, execute 'kedr start MODULE'", verb)
	}
	refused(t, 2, "unknown command", "reload")

	must(t, "insmod", ko("lifecycle"))
	refused(t, 3, "Service cannot be started because the target module is already loaded: unload lifecycle first (rmmod lifecycle)",
		"start", ko("producer"), ko("lifecycle"))
	must(t, "rmmod", "lifecycle")
	nothingLeft(t, "lifecycle")

	// Words and commas, each module once.
	out := must(t, program, "start", "--max-objects", "100", ko("producer")+","+ko("lifecycle"), ko("producer"))
	if strings.Count(out, "\nwatching ") != 2 || !strings.Contains(out, "\nwatching producer with ") || !strings.Contains(out, "\nwatching lifecycle with ") {
		t.Errorf("start: %s", out)
	}
	refused(t, 3, "service is already running: to stop it, execute 'kedr stop'", "start", ko("reload"))
	says(t, "KEDR status: loaded", "Target: producer,lifecycle", "Target status: not loaded",
		"producer: not loaded, loads: 0, allocations: 0, possible leaks: 0, wrong releases: 0")

	must(t, "insmod", ko("lifecycle"))
	tell(t, "hold", 3)
	says(t, "Target status: loaded", "producer: not loaded, loads: 0, allocations: 0, possible leaks: 0, wrong releases: 0",
		"lifecycle: loaded, loads: 1, allocations: 3, possible leaks: 3, wrong releases: 0")
	refused(t, 3, "Service cannot be stopped because the target module is still loaded: unload lifecycle first (rmmod lifecycle), or give --force", "stop")
	refused(t, 3, "Service cannot be restarted because the target module is still loaded: unload lifecycle first", "restart")
	must(t, "insmod", ko("producer"))
	refused(t, 3, "unload producer, lifecycle first (rmmod producer lifecycle)", "stop")
	must(t, "rmmod", "producer")
	tell(t, "drop", 1)
	must(t, "rmmod", "lifecycle")
	want(t, "unloaded", "lifecycle", "3/0/0")
	if out := must(t, program, "flush"); !strings.Contains(out, "always current") {
		t.Errorf("flush: %s", out)
	}

	out = must(t, program, "restart")
	if !strings.HasPrefix(out, "Stopping KEDR...\nKEDR stopped.\nStarting KEDR...\n") || !strings.HasSuffix(out, "\nKEDR started.\n") {
		t.Errorf("restart: %s", out)
	}
	says(t, "Target: producer,lifecycle", "lifecycle: not loaded, loads: 0, allocations: 0, possible leaks: 0, wrong releases: 0")
	// With its flags: there is room for 100 objects.
	must(t, "insmod", ko("lifecycle"))
	tell(t, "hold", 120)
	if o := kedr(t, "report", "lifecycle"); o.status != 4 || !strings.Contains(o.stdout, "(see --max-objects)") {
		t.Errorf("report: %+v", o)
	}
	// A clear makes it complete again.
	must(t, program, "clear")
	tell(t, "drop", 1)
	if o := kedr(t, "report", "lifecycle"); o.status != 1 || !strings.Contains(o.stdout, "Unallocated frees: 120\n") {
		t.Errorf("report after clear: %+v", o)
	}

	if out := must(t, program, "stop", "--force"); out != "Stopping KEDR...\nKEDR stopped.\n" {
		t.Errorf("stop --force: %s", out)
	}
	if _, err := os.Stat(sessionFiles); err == nil {
		t.Error("stop --force leaves the files behind")
	}
	says(t, "KEDR status: not loaded")
	must(t, "rmmod", "lifecycle")
}

// TestRestartOfWhatIsGone: a session goes on whose restart can't be.
func TestRestartOfWhatIsGone(t *testing.T) {
	ends(t, "reload")
	b, err := os.ReadFile(ko("reload"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "reload.ko")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, program, "start", file)
	must(t, "insmod", ko("reload"))
	must(t, "rmmod", "reload")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	refused(t, 3, "no such file", "restart")
	want(t, "not restarted", "reload", "2/1/0")
}

// TestStartByName takes modules of the kernel's own beside files.
func TestStartByName(t *testing.T) {
	fs := "minix"
	if !installed(t, fs) {
		fs = "romfs"
	}
	ends(t, fs, "reload")
	must(t, program, "start", fs+","+ko("reload"), fs)
	says(t, "Target: "+fs+",reload")
	must(t, "modprobe", fs)
	must(t, "insmod", ko("reload"))
	says(t, "Target status: loaded", "reload: loaded, loads: 1, allocations: 2, possible leaks: 1, wrong releases: 0")
}

// TestClearOne forgets what one of two targets did, and only that.
func TestClearOne(t *testing.T) {
	start(t, "lifecycle", "reload")
	must(t, "insmod", ko("lifecycle"))
	must(t, "insmod", ko("reload"))
	tell(t, "hold", 3)
	refused(t, 2, "module nosuch is not being watched: see kedr status", "clear", "nosuch")
	must(t, program, "clear", "reload")
	want(t, "the other cleared", "lifecycle", "3/3/0")
	want(t, "cleared", "reload", "0/0/0")
	if o := kedr(t, "report", "reload"); o.status != 0 {
		t.Errorf("report: %+v", o)
	}
	must(t, program, "clear", "lifecycle.ko")
	want(t, "cleared as well", "lifecycle", "0/0/0")
	tell(t, "drop", 1)
	want(t, "dropped", "lifecycle", "0/0/3")
	for _, f := range []string{"possible_leaks", "unallocated_frees"} {
		if s := sessionFile(t, "reload", f); s != "" {
			t.Errorf("reload's %s: %s", f, s)
		}
	}
}

// TestClearMakesRoom: cleared objects and call stacks are gone, once nobody is loaded
// who could obtain their addresses anew; and what is obtained then is accounted for. There
// is room for no more than one round has of both.
func TestClearMakesRoom(t *testing.T) {
	const n = 3000
	must(t, program, "start", "--max-objects", strconv.Itoa(n), "--max-stacks", "6", ko("lifecycle"))
	ends(t, "lifecycle")
	for range 4 {
		must(t, "insmod", ko("lifecycle"))
		tell(t, "hold", n)
		tell(t, "drop", 1)
		tell(t, "hold", n)
		want(t, "held", "lifecycle", strconv.Itoa(2*n)+"/"+strconv.Itoa(n)+"/0")
		must(t, program, "clear") // loaded
		tell(t, "drop", 1)
		want(t, "dropped", "lifecycle", "0/0/"+strconv.Itoa(n))
		tell(t, "hold", n) // leaked
		must(t, "rmmod", "lifecycle")
		want(t, "leaked", "lifecycle", strconv.Itoa(n)+"/"+strconv.Itoa(n)+"/"+strconv.Itoa(n))
		must(t, program, "clear")
		want(t, "cleared", "lifecycle", "0/0/0")
		empty(t)
	}
	s := opened(t)
	defer s.Close()
	lost, err := s.Lost()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lost {
		if strings.Contains(l.Reason, "there is room for") {
			t.Errorf("%s: %s: %d", l.Symbol, l.Reason, l.Count)
		}
	}
}

// opened is the session, from inside: a kedr clear takes a second, most of it for
// reading its programs.
func opened(t *testing.T) *probe.Set {
	t.Helper()
	k, err := kernel.Running()
	if err != nil {
		t.Fatal(err)
	}
	s, err := probe.OpenPinned(sessionPins, k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// empty checks that the session knows of nothing.
func empty(t *testing.T) {
	t.Helper()
	s := opened(t)
	defer s.Close()
	objects, err := s.Objects()
	if err != nil || len(objects) > 0 {
		t.Errorf("%d objects are left, %v", len(objects), err)
	}
	wrongs, err := s.Wrongs()
	if err != nil || len(wrongs) > 0 {
		t.Errorf("%d wrong releases are left, %v", len(wrongs), err)
	}
	stacks, err := s.Symbols()
	if err != nil || len(stacks) > 0 {
		t.Errorf("%d addresses of stacks are left, %v", len(stacks), err)
	}
}

// TestClearAtWork: while a target obtains and releases, each of its calls is forgotten
// as a whole or counted as a whole.
func TestClearAtWork(t *testing.T) {
	const out = 2000 // at any time
	start(t, "lifecycle")
	must(t, "insmod", ko("lifecycle"))
	tell(t, "churn", out)
	stop, done := make(chan bool), make(chan int)
	go func() {
		rounds := 0
		for {
			select {
			case <-stop:
				done <- rounds
				return
			default:
				os.WriteFile("/sys/module/lifecycle/parameters/churn", []byte("300"), 0)
				rounds++
			}
		}
	}()
	set := opened(t)
	defer set.Close()
	clears, wrong := 0, uint64(0)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && clears < 900; clears++ {
		if err := set.Clear(); err != nil {
			t.Fatal(err)
		}
		loads, err := set.Loads()
		if err != nil || len(loads) != 1 {
			t.Fatal(loads, err)
		}
		// That many objects at most were out when it was cleared, and are now.
		if l := loads[0]; l.WrongFrees > out || l.Live > out || l.Frees > l.Allocations {
			t.Errorf("clear %d: %+v", clears, l)
		}
		wrong += loads[0].WrongFrees
	}
	close(stop)
	rounds := <-done
	t.Logf("%d clears, at once after them %d releases of what they forgot; %d rounds of 300", clears, wrong, rounds)
	if clears < 3 || rounds < 3 || wrong == 0 {
		t.Error("that is too little")
	}
	must(t, program, "clear")
	want(t, "at rest, cleared", "lifecycle", "0/0/0")
	tell(t, "churn", 700)
	want(t, "some renewed", "lifecycle", "700/700/700")
	tell(t, "drop", 1)
	want(t, "dropped", "lifecycle", "700/0/2000")
	if r := parse(t, kedr(t, "report", "--format", "json", "lifecycle")); r.Frees != 700 || r.AllocatedBytes != 700*200 || r.LostEvents != 0 {
		t.Errorf("%+v", r)
	}
}

// TestClearAndLoad: a module comes and goes while all is cleared again and again.
func TestClearAndLoad(t *testing.T) {
	start(t, "reload")
	stop, done := make(chan bool), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			default:
				o := command(t, nil, "sh", "-c", "insmod "+ko("reload")+" && rmmod reload")
				if o.status != 0 {
					t.Errorf("%+v", o)
				}
			}
		}
	}()
	set := opened(t)
	defer set.Close()
	clears := 0
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && clears < 400; clears++ {
		if err := set.Clear(); err != nil {
			t.Fatal(err)
		}
		loads, err := set.Loads()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range loads {
			if l.Unloaded != 0 && l.Allocations-l.Frees != l.Live || l.Allocations > 2 || l.WrongFrees > 1 {
				t.Errorf("clear %d: %+v", clears, l)
			}
		}
	}
	close(stop)
	t.Logf("%d clears, %d loads", clears, <-done)
	must(t, "insmod", ko("reload"))
	must(t, "rmmod", "reload")
	want(t, "at last", "reload", "2/1/0")
	must(t, program, "clear")
	empty(t)
	for _, l := range parse(t, kedr(t, "report", "--format", "json", "reload")).Loads {
		if l.Loaded {
			t.Errorf("said to be loaded: %+v", l)
		}
	}
}

// TestStartTwice: of several starts at one moment one starts a session, and the others find
// it.
func TestStartTwice(t *testing.T) {
	ends(t, "reload")
	results := make(chan outcome)
	const n = 4
	for range n {
		go func() { results <- command(t, nil, program, "start", ko("reload")) }()
	}
	started := 0
	for range n {
		switch o := <-results; {
		case o.status == 0:
			started++
		case o.status != 3 || !strings.Contains(o.stderr, "service is already running"):
			t.Errorf("%+v", o)
		}
	}
	if started != 1 {
		t.Errorf("%d sessions were started", started)
	}
	says(t, "KEDR status: loaded", "Target: reload")
}
