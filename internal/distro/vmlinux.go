package distro

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// Boot is the file to boot the kernel from: the kernel itself, taken out of its boot file
// once. Boot files unpack themselves, which takes an emulated machine seconds. Where that
// can't be done, it is the boot file.
func (k Kernel) Boot() string {
	name := filepath.Join(k.Dir, "vmlinux-"+k.Release)
	if exists(name) {
		return name
	}
	if err := k.makeBoot(name); err != nil {
		return k.Image()
	}
	return name
}

// makeBoot makes the file, all or nothing.
func (k Kernel) makeBoot(name string) error {
	f, err := os.CreateTemp(k.Dir, ".vmlinux-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	switch err := extractKernel(f, k.Image()); {
	case errors.Is(err, errNoEntry):
		// That is how it stays: it is not tried again.
		rel, err := filepath.Rel(k.Dir, k.Image())
		if err != nil {
			return err
		}
		return os.Symlink(rel, name)
	case err != nil:
		return err
	}
	return os.Rename(f.Name(), name)
}

const (
	// maxKernel bounds what a boot file may unpack to; Debian's take 60 MB.
	maxKernel = 512 << 20
	// maxNotes bounds the notes that are read; Debian's take 500 bytes.
	maxNotes = 64 << 10
)

// errNoEntry says that a kernel can't be started but by its boot file.
var errNoEntry = errors.New("the kernel has no entry for PVH")

// extractKernel writes the ELF file that a boot file has inside, whose place its header
// tells (Documentation/arch/x86/boot.rst).
func extractKernel(out *os.File, image string) error {
	b, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	packed, err := payload(b)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	if err := unpackKernel(out, packed); err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	ok, err := hasEntry(out)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	if !ok {
		return errNoEntry
	}
	return nil
}

// payload finds the compressed kernel in a boot file.
func payload(b []byte) ([]byte, error) {
	const (
		sectors = 0x1f1
		magic   = 0x202
		version = 0x206
		offset  = 0x248
		length  = 0x24c
		end     = 0x250
		sector  = 512
	)
	if len(b) < end || string(b[magic:magic+4]) != "HdrS" {
		return nil, errors.New("not a boot file of Linux")
	}
	if v := binary.LittleEndian.Uint16(b[version:]); v < 0x208 {
		return nil, fmt.Errorf("boot protocol %d.%02d does not tell where the kernel is: it takes 2.08", v>>8, v&0xff)
	}
	setup := uint64(b[sectors])
	if setup == 0 {
		setup = 4
	}
	from := (setup+1)*sector + uint64(binary.LittleEndian.Uint32(b[offset:]))
	n := uint64(binary.LittleEndian.Uint32(b[length:]))
	if from > uint64(len(b)) || n < 4 || n > uint64(len(b))-from {
		return nil, errors.New("the kernel is said to be outside of the boot file")
	}
	return b[from : from+n-4], nil // the last word is its size (scripts/Makefile.lib, size_append)
}

func unpackKernel(out io.Writer, packed []byte) error {
	in := io.Reader(bytes.NewReader(packed))
	switch {
	case bytes.HasPrefix(packed, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxKernel))
		if err != nil {
			return err
		}
		defer z.Close()
		return bounded(out, z)
	case bytes.HasPrefix(packed, []byte("\xfd7zXZ\x00")):
		// With a filter for x86 code, which the program knows, and our library does not.
		cmd := exec.Command("xz", "-dc", "--single-stream")
		cmd.Stdin = in
		r, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		err = bounded(out, r)
		r.Close()
		return errors.Join(err, cmd.Wait())
	}
	return errors.New("packed in a way that is not known")
}

func bounded(out io.Writer, in io.Reader) error {
	buf := bufio.NewWriterSize(out, 1<<20)
	n, err := io.Copy(buf, io.LimitReader(in, maxKernel+1))
	if err == nil && n > maxKernel {
		err = fmt.Errorf("it unpacks to more than %d MB", maxKernel>>20)
	}
	return errors.Join(err, buf.Flush())
}

// hasEntry says whether a kernel has the note that tells its entry for PVH
// (XEN_ELFNOTE_PHYS32_ENTRY in include/xen/interface/elfnote.h), by which QEMU starts it.
func hasEntry(r io.ReaderAt) (bool, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return false, err
	}
	const phys32Entry = 18
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > maxNotes {
			continue
		}
		b, err := io.ReadAll(p.Open())
		if err != nil {
			return false, err
		}
		align := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
		for len(b) >= 12 {
			name, desc, typ := f.ByteOrder.Uint32(b), f.ByteOrder.Uint32(b[4:]), f.ByteOrder.Uint32(b[8:])
			b = b[12:]
			if align(name)+align(desc) > uint64(len(b)) {
				break
			}
			if typ == phys32Entry && bytes.HasPrefix(b, []byte("Xen\x00")) {
				return true, nil
			}
			b = b[align(name)+align(desc):]
		}
	}
	return false, nil
}
