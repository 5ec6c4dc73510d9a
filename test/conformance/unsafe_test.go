//go:build guest

package conformance

import "unsafe"

// addressOf is where a buffer is, for a system call that takes its address.
func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
