package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A machine that waits for its job is laid to sleep: its state is written to a file, from
// which later machines with the same kernel and devices wake in place of booting.

const (
	// maxSleep bounds the bytes of all files with states: the ones used longest ago go.
	maxSleep = 1 << 30
	// minFree is what has to be free where they lie, for one to be added.
	minFree = 2 << 30
	// sleepPatience is how long the emulator may take to write a state.
	sleepPatience = time.Minute
	// staleAfter is when a file that is being written is nobody's any more.
	staleAfter = time.Hour
)

// errSleep says that a machine did not come through being laid to sleep.
var errSleep = errors.New("the machine did not come through having its state written")

// bed is where the state of a machine is kept.
type bed struct{ dir, file string }

// bed tells where the state of this machine is kept, or is to be; nil: it is not to be.
// All that a state depends on is in the file's name: the emulator, what it is told, the
// kernel and the initramfs.
func (g *guestProcess) bed() *bed {
	c := g.config
	// Under KVM the host's CPU is part of the state, and a boot takes a second. A server of
	// files has a state of its own.
	if c.CacheDir == "" || c.Icount || g.accel != "tcg" || c.rootFS == rootVirtioFS {
		return nil
	}
	h := sha256.New()
	emulator, err := exec.LookPath(c.emulator())
	if err != nil {
		return nil
	}
	for _, name := range []string{emulator, c.Kernel.Boot()} {
		st, err := os.Stat(name)
		if err != nil {
			return nil
		}
		fmt.Fprintf(h, "%q %d %d\n", name, st.Size(), st.ModTime().UnixNano())
	}
	fmt.Fprintf(h, "%q\n", g.args())
	if _, err := io.Copy(h, io.NewSectionReader(g.initrd, 0, 1<<62)); err != nil {
		return nil
	}
	dir := filepath.Join(c.CacheDir, "machines")
	return &bed{dir: dir, file: filepath.Join(dir, hex.EncodeToString(h.Sum(nil)[:16])+".state")}
}

// open opens the state that is kept; nil: there is none.
func (b *bed) open() *os.File {
	f, err := os.Open(b.file)
	if err != nil {
		return nil
	}
	now := time.Now()
	os.Chtimes(b.file, now, now) // the last to go
	return f
}

// lay writes the machine's state to its file; the machine works on. It is told by the
// emulator's monitor. Errors are errSleep where the machine does not work on.
func (b *bed) lay(monitor *net.UnixConn) error {
	var st unix.Statfs_t
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	if err := unix.Statfs(b.dir, &st); err != nil {
		return err
	}
	if uint64(st.Bavail)*uint64(st.Bsize) < minFree {
		return fmt.Errorf("%s: less than %d MiB are free", b.dir, minFree>>20)
	}
	f, err := os.CreateTemp(b.dir, "new-*") // of the user alone
	if err != nil {
		return err
	}
	defer f.Close()
	err = migrate(monitor, f)
	if err == nil {
		err = os.Rename(f.Name(), b.file)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return b.tidy()
}

// tidy keeps the files in bounds.
func (b *bed) tidy() error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	var states []fs.FileInfo
	for _, e := range entries {
		st, err := e.Info()
		switch {
		case err != nil:
		case strings.HasPrefix(e.Name(), "new-"):
			if time.Since(st.ModTime()) > staleAfter {
				os.Remove(filepath.Join(b.dir, e.Name()))
			}
		default:
			states = append(states, st)
		}
	}
	slices.SortFunc(states, func(x, y fs.FileInfo) int { return y.ModTime().Compare(x.ModTime()) })
	var sum int64
	for i, st := range states {
		if sum += st.Size(); sum > maxSleep && i > 0 {
			os.Remove(filepath.Join(b.dir, st.Name()))
		}
	}
	return nil
}

// migrate has the emulator write a machine's state to a file, by its monitor (QEMU's
// docs/interop/qmp-spec and qapi/migration.json), and the machine go on. It stands still
// meanwhile: before QEMU 9.0 what an emulated processor writes to memory while that is being
// copied may be missing from the copy (cpu_physical_memory_sync_dirty_bitmap in
// include/exec/ram_addr.h of 7.2 clears the marks of pages written to, but lets the
// processor believe that it need not mark them again).
func migrate(conn *net.UnixConn, to *os.File) error {
	end := time.Now().Add(sleepPatience)
	conn.SetDeadline(end)
	m := &monitor{conn: conn, in: json.NewDecoder(conn)}
	if err := m.read(func(*message) bool { return true }); err != nil { // its greeting
		return fmt.Errorf("%w: %w", errSleep, err)
	}
	steps := []struct {
		command string
		file    *os.File
	}{
		{`{"execute":"qmp_capabilities"}`, nil},
		{`{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"events","state":true}]}}`, nil},
		{`{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":1000000000000}}`, nil},
		{`{"execute":"stop"}`, nil},
		{`{"execute":"getfd","arguments":{"fdname":"state"}}`, to},
		{`{"execute":"migrate","arguments":{"uri":"fd:state"}}`, nil},
	}
	for _, s := range steps {
		if err := m.execute(s.command, s.file); err != nil {
			return fmt.Errorf("%w: %w", errSleep, err)
		}
	}
	status := ""
	err := m.read(func(msg *message) bool {
		status = msg.Data.Status
		return msg.Event == "MIGRATION" && (status == "completed" || status == "failed")
	})
	// The event comes a moment before the machine may go on (qmp_cont in monitor/qmp-cmds.c).
	for goOn := true; err == nil && goOn; {
		err = m.execute(`{"execute":"cont"}`, nil)
		if goOn = errors.Is(err, errRefused) && time.Now().Before(end); goOn {
			err = nil
			time.Sleep(time.Millisecond)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errSleep, err)
	}
	if status != "completed" {
		return errors.New("the emulator could not write the machine's state")
	}
	return nil
}

// errRefused says that the emulator did not do what it was told.
var errRefused = errors.New("the emulator's monitor")

// monitor is the emulator's.
type monitor struct {
	conn *net.UnixConn
	in   *json.Decoder
}

// message is an answer or an event.
type message struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Status string `json:"status"`
	} `json:"data"`
}

// read reads messages up to the one that is waited for.
func (m *monitor) read(is func(*message) bool) error {
	for {
		var msg message
		if err := m.in.Decode(&msg); err != nil {
			return fmt.Errorf("the emulator's monitor: %w", err)
		}
		if msg.Error != nil {
			return fmt.Errorf("%w: %q", errRefused, msg.Error.Desc)
		}
		if is(&msg) {
			return nil
		}
	}
}

// execute gives a command, with a file if it takes one, and waits for the answer.
func (m *monitor) execute(command string, file *os.File) error {
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	if _, _, err := m.conn.WriteMsgUnix([]byte(command+"\n"), rights, nil); err != nil {
		return fmt.Errorf("the emulator's monitor: %w", err)
	}
	return m.read(func(msg *message) bool { return msg.Return != nil })
}
