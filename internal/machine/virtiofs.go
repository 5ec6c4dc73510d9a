package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// serveRoot starts a virtiofsd for the host's root, and names its socket. It ends
// with the machine's connection; stop waits for that.
func (g *guestProcess) serveRoot() (stop func(), err error) {
	server, err := findServer()
	if err != nil {
		return nil, fmt.Errorf("%s has no 9p: %w", g.config.Kernel.Release, err)
	}
	g.socket = fmt.Sprintf("kedr-%d-%p", os.Getpid(), g)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@" + g.socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("a socket for %s: %w", server, err)
	}
	// The machine finds nobody there, and says so, once the server is gone.
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("a socket for %s: %w", server, err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, server, "-f", "--fd=3", "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot")
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		// Its view of the files, read-only, is a thread's; see distro's runIn.
		runtime.LockOSThread()
		err := readOnly()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		cancel()
		return nil, fmt.Errorf("%s has no 9p, and the host's files can't be served by %s: %w", g.config.Kernel.Release, server, err)
	}
	return func() {
		cancel()
		<-ended
	}, nil
}

// readOnly makes all of the host's files read-only for the current thread.
func readOnly() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%w: run as root", err)
		}
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		return fmt.Errorf("making mounts read-only (requires Linux 5.12): %w", err)
	}
	return nil
}

func findServer() (string, error) {
	places := []string{"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	if p, err := exec.LookPath("virtiofsd"); err == nil {
		return p, nil
	}
	return "", fmt.Errorf("the host's files would come by virtiofsd, which is none of %s: apt install virtiofsd, or qemu-system-common before Debian 13", strings.Join(places, ", "))
}
