package machine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// IsGuest says whether this process is the init of a machine.
func IsGuest() bool {
	if os.Getpid() != 1 {
		return false
	}
	_, err := os.Stat(jobFile)
	return err == nil
}

// Guest is a machine's init: it makes the machine ready, runs the job's command
// and tells the host how it ended. It does not return.
func Guest() {
	if err := guest(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", notReady, err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// notReady begins what the guest says on the console for want of its port.
const notReady = "kedr: the machine could not be made ready: "

type mount struct{ source, target, fs, data string }

func mountAll(ms []mount) error {
	for _, m := range ms {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fs, 0, m.data); err != nil {
			return fmt.Errorf("mounting %s at %s: %w", m.fs, m.target, err)
		}
	}
	return nil
}

// kernelFS are the kernel's own file systems, below a root; the initramfs has
// its /dev by then.
func kernelFS(root string) []mount {
	ms := []mount{
		{"proc", root + "/proc", "proc", ""},
		{"sysfs", root + "/sys", "sysfs", ""},
		{"tmpfs", root + "/run", "tmpfs", "mode=0755"},
	}
	if root != "" {
		ms = append(ms, mount{"devtmpfs", root + "/dev", "devtmpfs", ""})
	}
	return ms
}

func guest() error {
	if err := mountAll([]mount{{"devtmpfs", "/dev", "devtmpfs", ""}}); err != nil {
		return err
	}
	b, err := os.ReadFile(jobFile)
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	if err := loadModules(j.PortModules); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	frames := &frameWriter{w: port}
	frames.write(frameAlive, nil)
	status, err := work(&j, frames)
	if err != nil {
		frames.write(frameFailed, []byte(err.Error()))
	} else {
		frames.write(frameExit, binary.LittleEndian.AppendUint32(nil, uint32(status)))
	}
	// Writes don't wait for the host; it ends the machine when it has read the last.
	time.Sleep(silence / 2)
	return err
}

// openPort opens the virtio port, the only one. It appears a moment after its
// driver, and can be opened a moment after that (ENXIO; add_port in
// drivers/char/virtio_console.c).
func openPort() (*os.File, error) {
	err := errors.New("no virtio port to the host appeared")
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		names, _ := filepath.Glob("/dev/vport*p*")
		if len(names) == 0 {
			continue
		}
		var fd int
		if fd, err = unix.Open(names[0], unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			return os.NewFile(uintptr(fd), names[0]), nil
		}
		err = fmt.Errorf("opening %s: %w", names[0], err)
	}
	return nil, err
}

func work(j *job, frames *frameWriter) (int, error) {
	go func() {
		for range time.Tick(time.Second) {
			frames.write(frameAlive, nil)
		}
	}()
	if err := loadModules(j.Modules); err != nil {
		return 0, err
	}
	root := ""
	if j.RootFS != "" {
		var err error
		if root, err = hostRoot(j); err != nil {
			return 0, err
		}
	}
	if err := mountAll(kernelFS(root)); err != nil {
		return 0, err
	}
	// Not every kernel has each of these; what needs them says so itself.
	for _, m := range []mount{
		{"bpf", root + "/sys/fs/bpf", "bpf", "mode=0700"},
		{"tracefs", root + "/sys/kernel/tracing", "tracefs", ""},
		{"debugfs", root + "/sys/kernel/debug", "debugfs", ""},
	} {
		unix.Mount(m.source, m.target, m.fs, 0, m.data)
	}
	os.MkdirAll(root+"/dev/shm", 0o1777)
	if err := selfIn(root); err != nil {
		return 0, err
	}
	linkUp("lo")
	if root != "" {
		if err := unix.Chroot(root); err != nil {
			return 0, fmt.Errorf("entering the host's root: %w", err)
		}
	}
	return runCommand(j, frames)
}

func loadModules(files []string) error {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("loading %s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// hostRoot puts the host's root together with a layer that takes the writes.
func hostRoot(j *job) (string, error) {
	const root = "/root"
	options := "" // it is served read-only
	if j.RootFS == root9p {
		options = "trans=virtio,version=9p2000.L,msize=131072,cache=loose,ro"
	}
	err := mountAll([]mount{
		{hostTag, "/host", j.RootFS, options},
		{"tmpfs", "/layer", "tmpfs", "mode=0755"},
	})
	if err != nil {
		return "", fmt.Errorf("%w: the kernel needs 9p or virtiofs", err)
	}
	lower := "/host"
	if j.Overlay {
		if err := mountAll([]mount{{archTag, "/arch", j.RootFS, options}}); err != nil {
			return "", err
		}
		lower = "/arch:" + lower
	}
	for _, d := range []string{"/layer/up", "/layer/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", err
		}
	}
	if err := mountAll([]mount{{"overlay", root, "overlay", "lowerdir=" + lower + ",upperdir=/layer/up,workdir=/layer/work"}}); err != nil {
		return "", err
	}
	// Where the guest's modprobe looks. /lib may be a link to usr/lib, as on the host.
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	lib := filepath.Join(root, "usr/lib/modules")
	if st, err := os.Lstat(root + "/lib"); err == nil && st.IsDir() {
		lib = filepath.Join(root, "lib/modules")
	}
	lib = filepath.Join(lib, unix.ByteSliceToString(u.Release[:]))
	if err := os.MkdirAll(lib, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount("/host"+j.Lib, lib, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("placing the kernel's modules: %w", err)
	}
	return root, nil
}

// selfIn makes this program known in the root that the command will see.
func selfIn(root string) error {
	if err := os.WriteFile(root+Self, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(initPath, root+Self, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("placing kedr in the machine: %w", err)
	}
	return nil
}

// linkUp brings a network interface up.
func linkUp(name string) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// runCommand runs the job's command to its end; its children are reaped too.
func runCommand(j *job, frames *frameWriter) (int, error) {
	os.Clearenv()
	for _, kv := range j.Env {
		for i := range kv {
			if kv[i] == '=' && i > 0 {
				os.Setenv(kv[:i], kv[i+1:])
				break
			}
		}
	}
	if j.Result {
		os.Setenv(ResultEnv, fmt.Sprint(ResultFD))
	}
	if j.Dir != "" {
		if err := os.Chdir(j.Dir); err != nil {
			return 0, err
		}
	}
	pipes := []*pipe{{to: stream{frames, frameStdout}}, {to: stream{frames, frameStderr}}, {to: stream{frames, frameResult}}}
	for _, p := range pipes {
		var err error
		if p.r, p.w, err = os.Pipe(); err != nil {
			return 0, err
		}
	}
	path, err := exec.LookPath(j.Argv[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	files := []*os.File{null, pipes[0].w, pipes[1].w}
	if j.Result {
		files = append(files, pipes[2].w)
	}
	p, err := os.StartProcess(path, j.Argv, &os.ProcAttr{
		Env:   os.Environ(),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", j.Argv[0], err)
	}
	var wg sync.WaitGroup
	for _, p := range pipes {
		p.w.Close()
		wg.Go(func() { io.Copy(p.to, p.r) })
	}
	status := reap(p.Pid)
	// A process left behind may hold the pipes open for ever.
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
	return status, nil
}

type pipe struct {
	r, w *os.File
	to   stream
}

// reap waits for a process, and buries all others whose parent is gone.
func reap(pid int) int {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 255
		case got != pid:
			continue
		case ws.Signaled():
			return 128 + int(ws.Signal())
		case ws.Exited():
			return ws.ExitStatus()
		}
	}
}
