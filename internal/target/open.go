package target

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"kedr/internal/kernel"
)

// Errors that callers decide on.
var (
	ErrNotELF    = errors.New("not an ELF file: a kernel module (.ko, also .ko.xz, .ko.zst, .ko.gz) is needed")
	ErrNotModule = errors.New("an ELF file, but not a kernel module: give the .ko that the kernel's build made")
	ErrTruncated = errors.New("the file ends too early: build or copy the module again")
	ErrArch      = errors.New("built for another architecture: kedr knows modules for x86")
)

// maxSize bounds what a compressed module may become.
const maxSize = 1 << 30

// Open reads a module from its file, plain or compressed.
func Open(path string) (*Module, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	image, err := unpack(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m, err := Parse(image, filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m.Path = abs
	return m, nil
}

// unpack reads a module whole; how it is compressed is told by its first bytes.
func unpack(f io.ReadSeeker) ([]byte, error) {
	var magic [6]byte
	n, err := io.ReadFull(f, magic[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var r io.Reader = f
	head := magic[:n]
	switch {
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		r, err = xz.NewReader(f)
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(f, zstd.WithDecoderMaxMemory(maxSize), zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		r, err = gzip.NewReader(f)
	case !bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return nil, ErrNotELF
	}
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrTruncated, err)
	}
	image, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w (%w)", ErrTruncated, err)
	case len(image) > maxSize:
		return nil, errors.New("more than 1 GiB when unpacked: not a kernel module")
	case !bytes.HasPrefix(image, []byte(elf.ELFMAG)):
		return nil, ErrNotELF
	}
	return image, nil
}

// Parse reads a module from its unpacked image; file is its file name.
func Parse(image []byte, file string) (m *Module, err error) {
	defer func() {
		// debug/elf is written for files that can be trusted.
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("%w (%v)", ErrTruncated, r)
		}
	}()
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		var fe *elf.FormatError
		if errors.As(err, &fe) && !bytes.HasPrefix(image, []byte(elf.ELFMAG)) {
			return nil, ErrNotELF
		}
		return nil, fmt.Errorf("%w (%w)", ErrTruncated, err)
	}
	if f.Type != elf.ET_REL || f.Section(".modinfo") == nil || f.Section(".gnu.linkonce.this_module") == nil {
		return nil, ErrNotModule
	}
	if f.Machine != elf.EM_X86_64 && f.Machine != elf.EM_386 {
		return nil, fmt.Errorf("%w (this one is for %s)", ErrArch, f.Machine)
	}
	m = &Module{Name: kernel.ModuleName(file), Machine: f.Machine, image: image}
	if err := m.readInfo(f); err != nil {
		return nil, err
	}
	if err := m.readSymbols(f); err != nil {
		return nil, err
	}
	if m.HasLines = f.Section(".debug_line") != nil && f.Section(".debug_info") != nil; m.HasLines {
		m.HasLines = f.Section(".debug_info").Size > 0
	}
	return m, m.readCalls(f)
}

// readInfo reads .modinfo: "key=value" strings, each with a zero byte at its end
// (include/linux/moduleparam.h, __MODULE_INFO).
func (m *Module) readInfo(f *elf.File) error {
	info, err := f.Section(".modinfo").Data()
	if err != nil {
		return fmt.Errorf("%w (reading .modinfo: %w)", ErrTruncated, err)
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		key, value, ok := strings.Cut(string(entry), "=")
		if !ok {
			continue
		}
		switch key {
		case "name":
			m.Name = kernel.ModuleName(value)
		case "vermagic":
			m.Vermagic = value
		case "depends":
			for dep := range strings.SplitSeq(value, ",") {
				if dep != "" {
					m.Depends = append(m.Depends, kernel.ModuleName(dep))
				}
			}
		}
	}
	// Elf_Nhdr, then "GNU\0" and the id (include/uapi/linux/elf.h).
	if note := f.Section(".note.gnu.build-id"); note != nil {
		if b, err := note.Data(); err == nil && len(b) > 16 {
			if n := binary.LittleEndian.Uint32(b[4:]); uint64(n) <= uint64(len(b)-16) {
				m.BuildID = hex.EncodeToString(b[16 : 16+n])
			}
		}
	}
	return nil
}

// Release is the kernel release that the module was built for.
func (m *Module) Release() string {
	release, _, _ := strings.Cut(m.Vermagic, " ")
	return release
}

func (m *Module) readSymbols(f *elf.File) error {
	symbols, err := f.Symbols()
	if err != nil {
		return fmt.Errorf("%w (reading the symbols: %w)", ErrTruncated, err)
	}
	m.SymbolCount = len(symbols) + 1 // debug/elf leaves out the null symbol
	m.sections = make(map[elf.SectionIndex]int)
	for i, s := range f.Sections {
		const code = elf.SHF_ALLOC | elf.SHF_EXECINSTR
		// Replacements are copied into other sections, and never run where they are.
		if s.Type == elf.SHT_PROGBITS && s.Flags&code == code && s.Size > 0 && s.Name != ".altinstr_replacement" {
			m.sections[elf.SectionIndex(i)] = len(m.Sections)
			m.Sections = append(m.Sections, Section{Name: s.Name, Index: uint16(i), Size: s.Size, Init: strings.HasPrefix(s.Name, ".init")})
		}
	}
	for i, s := range symbols {
		if s.Section == elf.SHN_UNDEF {
			if s.Name != "" {
				m.Imports = append(m.Imports, Import{Name: s.Name, Weak: elf.ST_BIND(s.Info) == elf.STB_WEAK})
			}
			continue
		}
		sec, ok := m.sections[s.Section]
		if !ok {
			continue
		}
		if to := &m.Sections[sec]; to.Symbol == 0 || elf.ST_TYPE(s.Info) == elf.STT_SECTION {
			to.Symbol, to.SymbolValue = uint32(i+1), s.Value
		}
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Value <= m.Sections[sec].Size && s.Size <= m.Sections[sec].Size-s.Value {
			m.Funcs = append(m.Funcs, Func{Name: s.Name, Section: sec, Offset: s.Value, Size: s.Size})
		}
	}
	slices.SortFunc(m.Imports, func(a, b Import) int { return cmp.Compare(a.Name, b.Name) })
	m.Imports = slices.CompactFunc(m.Imports, func(a, b Import) bool { return a.Name == b.Name })
	// init_module and cleanup_module are other names of the module's own functions.
	slices.SortStableFunc(m.Funcs, func(a, b Func) int {
		return cmp.Or(cmp.Compare(a.Section, b.Section), cmp.Compare(a.Offset, b.Offset),
			cmp.Compare(alias(a.Name), alias(b.Name)))
	})
	m.Funcs = slices.CompactFunc(m.Funcs, func(a, b Func) bool {
		return a.Section == b.Section && a.Offset == b.Offset && a.Size > 0 && b.Size > 0
	})
	return nil
}

func alias(name string) int {
	if name == "init_module" || name == "cleanup_module" {
		return 1
	}
	return 0
}

// FuncAt returns the function that holds an offset of a section.
func (m *Module) FuncAt(section int, offset uint64) (Func, bool) {
	i, found := slices.BinarySearchFunc(m.Funcs, Func{Section: section, Offset: offset}, func(f, want Func) int {
		return cmp.Or(cmp.Compare(f.Section, want.Section), cmp.Compare(f.Offset, want.Offset))
	})
	if !found {
		i--
	}
	if i < 0 || m.Funcs[i].Section != section || offset-m.Funcs[i].Offset >= m.Funcs[i].Size {
		return Func{}, false
	}
	return m.Funcs[i], true
}

// CallEndingAt returns the direct call or jump whose instruction ends there.
func (m *Module) CallEndingAt(section int, end uint64) (Call, bool) {
	i, ok := slices.BinarySearchFunc(m.Calls, Call{Section: section, End: end}, func(c, want Call) int {
		return cmp.Or(cmp.Compare(c.Section, want.Section), cmp.Compare(c.End, want.End))
	})
	if !ok {
		return Call{}, false
	}
	return m.Calls[i], true
}

// TailCalls returns the jumps out of a function to other functions.
func (m *Module) TailCalls(function string) []Call { return m.tails[function] }

// Image is the unpacked file.
func (m *Module) Image() []byte { return m.image }
