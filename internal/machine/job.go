// Package machine runs a command in a disposable virtual machine: a stock kernel
// of the distribution, this program as its init, and, where the command is the
// user's, the host's own root file system, read-only below a temporary layer.
package machine

// job is what the guest is to do; it travels in the initramfs.
type job struct {
	Argv    []string
	Env     []string
	Dir     string
	RootFS  string   // by which file system the host's root comes; "": it does not
	Overlay bool     // before it comes a root of programs for this kernel
	Result  bool     // the command writes one
	Modules []string // files to load, in order
	// PortModules are loaded before them: the port to the host needs them.
	PortModules []string
	// Lib is the directory of the guest kernel's modules on the host.
	Lib string
}

// Paths in the initramfs.
const (
	jobFile  = "/kedr-job.json"
	initPath = "/init"
	// Self is where the guest finds this program.
	Self = "/run/kedr"
	// ResultFD is the descriptor on which the command may write its result.
	ResultFD = 3
	// ResultEnv tells the command that it has one.
	ResultEnv = "KEDR_RESULT_FD"
	hostTag   = "hostroot"
	archTag   = "archroot"
	// The file systems by which the host's root may come.
	root9p       = "9p"
	rootVirtioFS = "virtiofs"
)
