// Package errno names the kernel's errors, also those that no process gets to see.
package errno

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Max is the largest number of an error: a pointer or an integer from -Max on up to -1
// is one (include/linux/err.h, MAX_ERRNO).
const Max = 4095

// internal are those of include/linux/errno.h, and one that the C library calls otherwise.
var internal = map[int]string{
	95:  "EOPNOTSUPP",
	512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 515: "ENOIOCTLCMD",
	516: "ERESTART_RESTARTBLOCK", 517: "EPROBE_DEFER", 518: "EOPENSTALE", 519: "ENOPARAM",
	521: "EBADHANDLE", 522: "ENOTSYNC", 523: "EBADCOOKIE", 524: "ENOTSUPP", 525: "ETOOSMALL",
	526: "ESERVERFAULT", 527: "EBADTYPE", 528: "EJUKEBOX", 529: "EIOCBQUEUED",
	530: "ERECALLCONFLICT", 531: "ENOGRACE",
}

// numbers has the second names of some as well.
var numbers = func() map[string]int {
	m := map[string]int{"EWOULDBLOCK": int(unix.EWOULDBLOCK), "EDEADLOCK": int(unix.EDEADLOCK), "ENOTSUP": int(unix.ENOTSUP)}
	for n := 1; n < 512; n++ {
		if name := unix.ErrnoName(syscall.Errno(n)); name != "" {
			m[name] = n
		}
	}
	for n, name := range internal {
		m[name] = n
	}
	return m
}()

// Name names an error by its number, which is above zero: ENOMEM. Empty: there is none.
func Name(n int) string {
	if name, ok := internal[n]; ok {
		return name
	}
	if n <= 0 || n > Max {
		return ""
	}
	return unix.ErrnoName(syscall.Errno(n))
}

// Number is an error's number, above zero.
func Number(name string) (int, bool) {
	n, ok := numbers[name]
	return n, ok
}
