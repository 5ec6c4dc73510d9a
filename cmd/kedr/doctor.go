package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"kedr/internal/distro"
	"kedr/internal/kernel"
)

func newDoctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do, and what to do about the rest",
		Long: `Doctor prints a line for each thing that kedr needs: for watching modules on
this very kernel, and for disposable machines. Each "no" has its reason and its
remedy.

Exit status:
  0  at least one of the two can be done
  2  wrong usage
  3  neither can`,
		Example: "  kedr doctor",
		Args:    exactArgs(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := kernel.Running()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "On this kernel, %s:\n", k.Release)
			here := printChecks(out, k.Examine())
			fmt.Fprintf(out, "\nIn a disposable machine:\n")
			vm := printChecks(out, machineChecks())
			fmt.Fprintln(out)
			switch {
			case here:
				fmt.Fprintln(out, "kedr run works here, on this very kernel.")
			case vm:
				fmt.Fprintln(out, "kedr run works here, in a disposable machine.")
			default:
				return errors.New("neither this kernel nor a machine can be used: see the remedies above")
			}
			return nil
		},
	}
}

// printChecks says whether all of them are met.
func printChecks(out io.Writer, checks []kernel.Check) bool {
	all := true
	for _, c := range checks {
		if c.OK {
			fmt.Fprintf(out, "  yes  %s: %s\n", c.What, c.Detail)
			continue
		}
		all = false
		fmt.Fprintf(out, "  no   %s: %s. Remedy: %s\n", c.What, c.Detail, c.Remedy)
	}
	return all
}

// machineChecks looks at what machines need; KVM only makes them faster.
func machineChecks() []kernel.Check {
	tool := func(what, name, remedy string) kernel.Check {
		path, err := exec.LookPath(name)
		if err != nil {
			return kernel.Check{What: what, Detail: name + " is not installed", Remedy: remedy}
		}
		return kernel.Check{What: what, Detail: path, OK: true}
	}
	kvm := kernel.Check{What: "acceleration", Detail: "no usable /dev/kvm, so machines are emulated: some ten times slower, and good for all else", OK: true}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		kvm.Detail = "/dev/kvm opens; where a machine does not boot on it, emulation is used"
	}
	kernels := kernel.Check{What: "kernels", Detail: "none at hand yet: fetched when one is needed (kedr vm fetch)", OK: true}
	if store, err := distro.NewStore(nil); err == nil {
		if cached, err := store.Cached(); err == nil && len(cached) > 0 {
			kernels.Detail = fmt.Sprintf("%d at hand, the newest %s", len(cached), cached[0].Release)
		}
	}
	return []kernel.Check{
		tool("emulator", "qemu-system-x86_64", "apt install qemu-system-x86"),
		kvm,
		tool("packages of kernels", "apt-get", "kernels come by Debian's package tools: use a Debian or Ubuntu host"),
		tool("unpacking them", "dpkg-deb", "apt install dpkg"),
		kernels,
	}
}
