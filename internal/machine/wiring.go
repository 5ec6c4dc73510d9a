package machine

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// wiring is what leads from the host to the emulator: descriptors, and the arguments that
// name them.
type wiring struct {
	args    []string
	theirs  []*os.File    // the emulator's from 3 on
	frames  *os.File      // what the guest says
	orders  *net.UnixConn // its job
	monitor *net.UnixConn // the emulator's, for a state to be written; else nil

	initrd *os.File // among theirs, but not to be closed
}

// wire makes the wiring of a machine that wakes, if it can, or boots.
func (g *guestProcess) wire() (w *wiring, err error) {
	w = &wiring{args: g.args(), initrd: g.initrd}
	defer func() {
		if err != nil {
			w.closeTheirs()
			w.close()
		}
	}()
	frames, theirs, err := os.Pipe()
	if err != nil {
		return w, err
	}
	w.frames, w.theirs = frames, append(w.theirs, theirs, g.initrd)
	if w.orders, theirs, err = socketPair(); err != nil {
		return w, err
	}
	w.theirs = append(w.theirs, theirs)
	if g.sleep == nil {
		return w, nil
	}
	if state := g.sleep.open(); state != nil {
		g.woken = true
		w.theirs = append(w.theirs, state)
		w.args = append(w.args, "-incoming", "fd:6")
		return w, nil
	}
	if w.monitor, theirs, err = socketPair(); err != nil {
		return w, err
	}
	w.theirs = append(w.theirs, theirs)
	w.args = append(w.args, "-chardev", "socket,id=monitor,fd=6", "-mon", "chardev=monitor,mode=control")
	return w, nil
}

// closeTheirs closes what the emulator has got, or is not to get.
func (w *wiring) closeTheirs() {
	for _, f := range w.theirs {
		if f != w.initrd {
			f.Close()
		}
	}
	w.theirs = nil
}

func (w *wiring) close() {
	if w.frames != nil {
		w.frames.Close()
	}
	for _, c := range []*net.UnixConn{w.orders, w.monitor} {
		if c != nil {
			c.Close()
		}
	}
}

// socketPair makes two ends of a stream, ours and one for the emulator.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket to the machine: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "machine")
	f := os.NewFile(uintptr(fds[0]), "host")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("making a socket to the machine: %w", err)
	}
	return c.(*net.UnixConn), theirs, nil
}
