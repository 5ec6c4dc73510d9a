package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Check is one thing that a host can or cannot do.
type Check struct {
	What   string
	Detail string // what was found, or why it can't
	Remedy string // what to do about it; empty where it can
	OK     bool
}

// Examine checks what watching modules on this very kernel needs.
func (k *Kernel) Examine() []Check {
	checks := []Check{
		check("load modules", loadModules, "run kedr in a machine (--vm=always)"),
		check("be root", func() (string, error) {
			if uid := os.Geteuid(); uid != 0 {
				return "", fmt.Errorf("user id is %d", uid)
			}
			return "user id is 0", nil
		}, "run as root, or in a machine (--vm=always)"),
	}
	functions := []Check{
		{What: "kernel's own types (BTF)", Detail: "/sys/kernel/btf/vmlinux", OK: true},
		check("trampolines (fentry, fexit)", func() (string, error) { return bpf(ebpf.Tracing) }, "use Linux 5.5 or newer on x86-64 with CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS, or --backend=kprobe"),
	}
	if !k.OwnTypes() {
		functions = []Check{check("kprobes, for it has no types of its own (BTF)", kprobes, "use a kernel with CONFIG_DEBUG_INFO_BTF or CONFIG_KPROBE_EVENTS, or a machine (--vm=always)")}
	}
	checks = append(checks,
		check("eBPF programs", func() (string, error) { return bpf(ebpf.RawTracepoint) }, "as root, on a kernel with CONFIG_BPF_SYSCALL that is not locked down"))
	return append(append(checks, functions...),
		check("symbols", k.symbolsByName, "run as root, or sysctl kernel.kptr_restrict=1"),
		check("probing is not locked down", lockdown, "boot without lockdown=confidentiality, or use a machine (--vm=always)"),
		check("unsigned modules", signatures, "sign the module, boot without module.sig_enforce, or use a machine (--vm=always)"),
		check("files of a session (bpffs)", bpffs, "mount -t bpf bpf /sys/fs/bpf"),
	)
}

func check(what string, f func() (string, error), remedy string) Check {
	detail, err := f()
	if err != nil {
		return Check{What: what, Detail: err.Error(), Remedy: remedy}
	}
	return Check{What: what, Detail: detail, OK: true}
}

func loadModules() (string, error) {
	if !HasModules() {
		return "", errors.New("this kernel is built without modules (no /proc/modules)")
	}
	if b, err := os.ReadFile("/proc/sys/kernel/modules_disabled"); err == nil && strings.TrimSpace(string(b)) == "1" {
		return "", errors.New("loading has been disabled until the next boot (kernel.modules_disabled=1)")
	}
	return "/proc/modules", nil
}

func kprobes() (string, error) {
	const events = "/sys/kernel/tracing/kprobe_events"
	if err := unix.Access(events, unix.W_OK); err != nil {
		// It may be mounted when it is needed.
		if _, err := os.Stat("/sys/kernel/tracing"); err != nil {
			return "", errors.New("there is no tracefs")
		}
		return "tracefs is not mounted, and will be; no traces of calls, no files of a session", nil
	}
	return events + "; no traces of calls, no files of a session", nil
}

// symbolsByName says how symbols are looked up.
func (k *Kernel) symbolsByName() (string, error) {
	if k.HasHelper("kallsyms_lookup_name") {
		return bpf(ebpf.Syscall)
	}
	_, err := k.Symbols()
	return "/proc/kallsyms", err
}

func bpf(t ebpf.ProgramType) (string, error) {
	err := features.HaveProgramType(t)
	switch {
	case err == nil:
		return t.String(), nil
	case errors.Is(err, ebpf.ErrNotSupported):
		return "", fmt.Errorf("this kernel has no programs of type %s", t)
	case errors.Is(err, unix.EPERM):
		return "", errors.New("not permitted")
	}
	return "", err
}

// lockdown reads the level that is in force: the word in brackets
// (security/lockdown/lockdown.c). Confidentiality forbids reading kernel memory.
func lockdown() (string, error) {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err != nil {
		return "no lockdown", nil
	}
	_, level, _ := bytes.Cut(b, []byte("["))
	level, _, _ = bytes.Cut(level, []byte("]"))
	if string(level) == "confidentiality" {
		return "", errors.New("the kernel is locked down (confidentiality)")
	}
	return fmt.Sprintf("lockdown level %q", level), nil
}

// LockedDown says whether programs may not read kernel memory.
func LockedDown() bool {
	_, err := lockdown()
	return err != nil
}

func signatures() (string, error) {
	b, err := os.ReadFile("/sys/module/module/parameters/sig_enforce")
	if err == nil && strings.TrimSpace(string(b)) == "Y" {
		return "", errors.New("the kernel loads signed modules only (module.sig_enforce)")
	}
	return "signatures are not enforced", nil
}

func bpffs() (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/bpf", &st); err != nil {
		return "", fmt.Errorf("/sys/fs/bpf: %w", err)
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		return "", errors.New("/sys/fs/bpf is not mounted")
	}
	return "/sys/fs/bpf", nil
}
