//go:build guest

package conformance

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// workloadVariable makes this program a workload, in a process of its own: the
// words after RUN ... -- of a module's source.
const workloadVariable = "KEDR_TEST_WORKLOAD"

// workloads are what can be done with a file of a module's.
var workloads = map[string]func(*os.File) error{
	"read": func(f *os.File) error {
		_, err := io.Copy(io.Discard, f)
		return err
	},
	"write": func(f *os.File) error {
		_, err := f.WriteString("sixteen letters!")
		return err
	},
	"ioctl": func(f *os.File) error {
		buffer := make([]byte, 4096)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x4b01, uintptr(unsafe.Pointer(&buffer[0])))
		if errno != 0 {
			return errno
		}
		return nil
	},
}

// send brings a network device up and sends datagrams through it.
func send(device, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	// Nobody else is to send.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/disable_ipv6", []byte("1"), 0); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	if err := req.SetInet4Addr([]byte{10, 99, 0, 1}); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, req); err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_NOARP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return err
	}
	for range n {
		if err := unix.Sendto(fd, []byte("hello"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 99, 0, 2}}); err != nil {
			return err
		}
	}
	return nil
}

func runWorkload(word string, files []string) int {
	if word == "send" && len(files) == 2 {
		if err := send(files[0], files[1]); err != nil {
			fmt.Fprintln(os.Stderr, "send:", err)
			return 1
		}
		return 0
	}
	do := workloads[word]
	if do == nil {
		fmt.Fprintln(os.Stderr, "no workload:", word)
		return 1
	}
	flags := map[string]int{"read": os.O_RDONLY, "write": os.O_WRONLY, "ioctl": os.O_RDWR}
	for _, name := range files {
		f, err := os.OpenFile(name, flags[word], 0)
		if err == nil {
			err = do(f)
			f.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, word, name, err)
			return 1
		}
	}
	return 0
}
