package machine

import (
	"bufio"
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
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsGuest says whether this process is the init of a machine.
func IsGuest() bool {
	if os.Getpid() != 1 {
		return false
	}
	_, err := os.Stat(setupFile)
	return err == nil
}

// Guest is a machine's init: it makes the machine ready, runs the command of its job
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
	b, err := os.ReadFile(setupFile)
	if err != nil {
		return err
	}
	var s setup
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("reading what to set up: %w", err)
	}
	if err := loadModules(s.PortModules); err != nil {
		return err
	}
	port, err := openPort(portOut, unix.O_WRONLY)
	if err != nil {
		return err
	}
	frames := &frameWriter{w: port}
	frames.write(frameAlive, nil)
	status, err := obey(&s, frames)
	if err != nil {
		frames.write(frameFailed, []byte(err.Error()))
	} else {
		frames.write(frameExit, binary.LittleEndian.AppendUint32(nil, uint32(status)))
	}
	// Writes don't wait for the host; it ends the machine when it has read the last.
	time.Sleep(silence / 2)
	return err
}

// obey makes the machine ready, waits for its job, and does it.
func obey(s *setup, frames *frameWriter) (int, error) {
	if err := loadModules(s.Modules); err != nil {
		return 0, err
	}
	orders, err := openPort(portIn, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	frames.write(frameReady, nil)
	// Here a machine may be laid to sleep, and woken many times.
	j, err := receiveJob(bufio.NewReaderSize(&portReader{file: orders}, 64<<10), "/")
	if err != nil {
		return 0, err
	}
	frames.write(frameAlive, nil)
	awake(j)
	return work(j, frames)
}

// awake tells the kernel the time, and makes its random numbers differ from those of
// other machines that have slept the same sleep.
func awake(j *job) {
	now := unix.NsecToTimespec(j.Time)
	unix.ClockSettime(unix.CLOCK_REALTIME, &now)
	// struct rand_pool_info (include/uapi/linux/random.h): bits of entropy, bytes, the bytes.
	info := binary.NativeEndian.AppendUint32(nil, uint32(8*len(j.Seed)))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(j.Seed)))
	info = append(info, j.Seed...)
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0])))
	unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDRESEEDCRNG, 0)
}

// The virtio ports, numbered as the emulator is given them.
const (
	portOut = 1 // the guest's frames
	portIn  = 2 // the guest's job
)

// openPort opens a virtio port. It appears a moment after its driver, and can be opened
// a moment after that (ENXIO; add_port in drivers/char/virtio_console.c).
func openPort(port, how int) (*os.File, error) {
	err := errors.New("no virtio port to the host appeared")
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		names, _ := filepath.Glob(fmt.Sprintf("/dev/vport*p%d", port))
		if len(names) == 0 {
			continue
		}
		var fd int
		if fd, err = unix.Open(names[0], how|unix.O_CLOEXEC, 0); err == nil {
			return os.NewFile(uintptr(fd), names[0]), nil
		}
		err = fmt.Errorf("opening %s: %w", names[0], err)
	}
	return nil, err
}

// portReader reads from a port, which is at its end until the kernel has been told that
// there is a host (port_fops_read in drivers/char/virtio_console.c).
type portReader struct {
	file    *os.File
	started bool
}

func (p *portReader) Read(b []byte) (int, error) {
	for {
		n, err := p.file.Read(b)
		p.started = p.started || n > 0
		if p.started || !errors.Is(err, io.EOF) {
			return n, err
		}
		time.Sleep(time.Millisecond)
	}
}

func work(j *job, frames *frameWriter) (int, error) {
	go func() {
		for range time.Tick(time.Second) {
			frames.write(frameAlive, nil)
		}
	}()
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
