//go:build guest

package conformance

import (
	"fmt"
	"io"
	"os"
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

func runWorkload(word string, files []string) int {
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
