package machine

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"kedr/internal/distro"
)

// emulator is the program that runs a kernel.
func (c *Config) emulator() string {
	if c.Kernel.Arch() == distro.I386 {
		return "qemu-system-i386"
	}
	return "qemu-system-x86_64"
}

// soundSince is the first QEMU whose cmpxchg16b leaves the flags alone. Before, it makes
// them anew out of what may be anything (cmpxchg16b was a helper that read a stale
// cc_op: target/i386/tcg/translate.c of 7.2), and the kernel dies of them when it is
// interrupted right there: its allocator does no instruction more often.
const soundSince = 8

var emulatorVersion = regexp.MustCompile(`^QEMU emulator version (\d{1,4})\.`)

// cpu is the processor that is emulated.
func (c *Config) cpu() string {
	m := emulatorVersion.FindSubmatch(c.version)
	if m == nil {
		return "max"
	}
	if major, _ := strconv.Atoi(string(m[1])); major >= soundSince || c.needsCmpxchg() {
		return "max"
	}
	return "max,-cx16"
}

// needsCmpxchg says whether the kernel needs the instruction: one of 32 bits does not boot
// without what it has in its place, cmpxchg8b, and since 6.18 there is kmalloc_nolock, which
// allocates nothing without it (mm/slub.c); but there the allocator makes less use of it.
func (c *Config) needsCmpxchg() bool {
	var major, minor int
	_, err := fmt.Sscanf(c.Kernel.Release, "%d.%d", &major, &minor)
	return c.Kernel.Arch() != distro.AMD64 || err != nil || major > 6 || major == 6 && minor >= 18
}

// askVersion asks the emulator for its version, which takes it 30 ms. One that does not
// tell it will not run a machine either, and says why then.
func (c *Config) askVersion() {
	c.version, _ = exec.Command(c.emulator(), "--version").Output()
}

// accelFile remembers what works, until the host boots anew.
func (c *Config) accelFile() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || c.CacheDir == "" {
		return ""
	}
	return filepath.Join(c.CacheDir, "accel-"+string(bytes.TrimSpace(id)))
}

func (c *Config) rememberedAccel() string {
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return "tcg"
	} else {
		f.Close()
	}
	b, _ := os.ReadFile(c.accelFile())
	switch a := string(b); a {
	case "kvm", "tcg":
		return a
	}
	return ""
}

func (c *Config) rememberAccel(accel string) {
	name := c.accelFile()
	if name == "" {
		return
	}
	old, _ := filepath.Glob(filepath.Join(c.CacheDir, "accel-*"))
	for _, o := range old {
		os.Remove(o)
	}
	os.MkdirAll(c.CacheDir, 0o755)
	os.WriteFile(name, []byte(accel), 0o600)
}

func (g *guestProcess) args() []string {
	c := g.config
	// The kernel's tests of its ciphers are a third of what it does before its init runs.
	cmdline := "console=ttyS0 panic=-1 oops=panic hung_task_panic=1 loglevel=5 cryptomgr.notests"
	if g.patience == 0 {
		cmdline += " quiet"
	}
	// One thread for all CPUs: as fast as one for each, where a boot is what takes
	// the time, and the kernel's patching of its own code can't be overtaken.
	accel := "tcg,thread=single"
	cpu := c.cpu()
	if g.accel == "kvm" {
		accel, cpu = "kvm", "host"
	}
	cpus := orDefault(c.CPUs, 2)
	var clock []string
	if c.Icount {
		cpus, clock = 1, []string{"-icount", "shift=0,sleep=off"}
	}
	memory := strconv.Itoa(orDefault(c.Memory, 1024))
	args := []string{
		"-accel", accel, "-cpu", cpu,
		"-smp", strconv.Itoa(cpus), "-m", memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-serial", "stdio",
		// A state is that of a machine that stands still, and would say so: what wakes from it
		// would stand still, too (global_state_needed in QEMU's migration/global_state.c).
		"-global", "migration.store-global-state=off",
		"-chardev", "file,id=job,path=/dev/fd/3",
		"-chardev", "socket,id=orders,fd=5",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=job", "-device", "virtserialport,chardev=orders",
		"-kernel", c.Kernel.Boot(), "-initrd", "/proc/self/fd/4", "-append", cmdline,
	}
	args = append(args, clock...)
	switch c.rootFS {
	case root9p:
		args = append(args, "-virtfs", "local,path=/,mount_tag="+hostTag+",security_model=none,readonly=on,multidevs=remap")
		if c.ArchRoot != "" {
			args = append(args, "-virtfs", "local,path="+c.ArchRoot+",mount_tag="+archTag+",security_model=none,readonly=on,multidevs=remap")
		}
	case rootVirtioFS:
		// The server of the files reads and writes the machine's memory.
		args = append(args,
			"-object", "memory-backend-memfd,id=memory,share=on,size="+memory+"M", "-machine", "memory-backend=memory",
			"-chardev", "socket,id=root,abstract=on,path="+g.socket, "-device", "vhost-user-fs-pci,chardev=root,tag="+hostTag)
	}
	return args
}
