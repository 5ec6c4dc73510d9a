package leak

import "regexp"

// headerRE is where the kernel's own headers are, as debug information names them:
// /usr/src/linux-headers-6.1.0-56-common/include/linux/slab.h, ./arch/x86/include/asm/io.h.
var headerRE = regexp.MustCompile(`(^|/)(linux-headers-[^/]*/|include/(linux|uapi|asm-generic|asm|net|crypto|drm|media|rdma|scsi|sound|trace)/|arch/[^/]+/include/)`)

// Header says whether a function is one of the kernel's headers, and in the target only
// because the compiler has put it there: kmalloc of slab.h, kmalloc_noprof since 6.10.
func (f Frame) Header() bool { return headerRE.MatchString(f.File) }

// Place is where in a module's own source a stack leads: its innermost function that is
// not the kernel's headers'. False: none of the module's functions is known.
func Place(stack []Frame, module string) (Frame, bool) {
	at := -1
	for i, f := range stack {
		if f.Module != module || f.Function == "" {
			continue
		}
		if !f.Header() {
			return f, true
		}
		if at < 0 {
			at = i
		}
	}
	if at < 0 {
		return Frame{}, false
	}
	return stack[at], true
}
