package kernel

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Load loads a module from its unpacked image, with parameters ("name=value").
func Load(image []byte, params []string) error {
	err := unix.InitModule(image, strings.Join(params, " "))
	if err == nil {
		return nil
	}
	// What insmod calls "Invalid parameters" and the like; the kernel's log knows more.
	for errno, hint := range map[unix.Errno]string{
		unix.ENOEXEC:      "the kernel finds its format wrong: is it built for this kernel?",
		unix.ENOENT:       "it needs a symbol that neither the kernel nor a loaded module has: load what provides it first",
		unix.EEXIST:       "it is loaded already",
		unix.EPERM:        "not permitted: run as root; with secure boot the module must be signed",
		unix.EKEYREJECTED: "the kernel accepts only signed modules: sign it, or use a machine (kedr run --vm=always)",
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %s (dmesg may tell more)", err, hint)
		}
	}
	return err
}
