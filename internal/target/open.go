package target

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Why a file cannot be read as a module. Errors of Open match at most one of
// them with errors.Is; any other error comes from the file system.
var (
	// ErrNotELF: neither an ELF file nor one in a compression the kernel uses.
	ErrNotELF = errors.New("not an ELF file")
	// ErrTruncated: the file, or what it decompresses to, ends too early.
	ErrTruncated = errors.New("file is truncated")
	// ErrTooLarge: more than a gibibyte once decompressed.
	ErrTooLarge = errors.New("file is too large")
	// ErrMalformed: contradicts itself, or the compressed data are corrupt.
	ErrMalformed = errors.New("file is malformed")
	// ErrNotModule: an ELF file, but not one that the kernel loads as a module.
	ErrNotModule = errors.New("not a kernel module")
	// ErrArch: a module for a machine that kedr does not know.
	ErrArch = errors.New("unsupported machine")
)

// maxImage bounds the file and what it decompresses to, in bytes.
const maxImage = 1 << 30

// maxWindow bounds what a decompressor may keep of its past output, in bytes.
// That is what zstd has at its highest level; the kernel's build compresses
// with less (scripts/Makefile.modinst, 6.1).
const maxWindow = 128 << 20

// Open reads the module in the file path: a .ko as it is, or compressed with
// xz, zstd or gzip, which is told from its first bytes. The file is not
// trusted, and not needed any more once Open has returned.
func Open(path string) (*Module, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read module: %w", err)
	}
	raw, err := readFile(abs)
	if err != nil {
		return nil, fmt.Errorf("cannot read module: %w", err)
	}
	m, err := parse(abs, raw, maxImage)
	if err != nil {
		return nil, fmt.Errorf("cannot read module %s: %w", path, err)
	}
	return m, nil
}

// readFile returns the content of a regular file. Anything else is refused
// before it is opened: opening a FIFO would block.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: not a regular file: give the .ko file", path, ErrNotELF)
	}
	if info.Size() > maxImage {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d are read", path, ErrTooLarge, info.Size(), maxImage)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The size may have changed since: never read more than was allowed for.
	raw := make([]byte, info.Size())
	n, err := io.ReadFull(f, raw)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return raw[:n], nil
}

// Parse reads a module from the content of its file, compressed or not; file is
// its name, which names a module that does not do so itself.
func Parse(content []byte, file string) (*Module, error) { return parse(file, content, maxImage) }

// parse makes a Module of the content of a file. limit bounds the decompressed
// size, in bytes.
func parse(path string, raw []byte, limit int64) (m *Module, err error) {
	// debug/elf and the decompressors are given whatever bytes the file has,
	// and promise nothing about those.
	defer func() {
		if p := recover(); p != nil {
			m, err = nil, fmt.Errorf("%w: %v: rebuild or fetch the module again", ErrMalformed, p)
		}
	}()
	image, err := decompress(raw, limit)
	if err != nil {
		return nil, err
	}
	return parseImage(path, image)
}

// decompress returns the ELF file in raw, which is raw itself if it is not
// compressed.
func decompress(raw []byte, limit int64) ([]byte, error) {
	var (
		how string
		r   io.Reader
		err error
	)
	switch {
	case bytes.HasPrefix(raw, []byte("\xfd7zXZ\x00")):
		how = "xz"
		if err := checkXZ(raw); err != nil {
			return nil, err
		}
		r, err = xz.NewReader(bytes.NewReader(raw))
	case bytes.HasPrefix(raw, []byte("\x28\xb5\x2f\xfd")):
		how = "zstd"
		var d *zstd.Decoder
		d, err = zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxMemory(uint64(limit)+1), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			defer d.Close()
			r = d
		}
	case bytes.HasPrefix(raw, []byte("\x1f\x8b")):
		how = "gzip"
		r, err = gzip.NewReader(bytes.NewReader(raw))
	default:
		return raw, nil
	}
	var image []byte
	if err == nil {
		image, err = io.ReadAll(io.LimitReader(r, limit+1))
	}
	switch {
	case err == nil && int64(len(image)) > limit, errors.Is(err, zstd.ErrDecoderSizeExceeded),
		errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, fmt.Errorf("%w: %s data of more than %d bytes: decompress it by hand and strip it of what is not needed", ErrTooLarge, how, limit)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: %s data end early: fetch the file again", ErrTruncated, how)
	case err != nil:
		return nil, fmt.Errorf("%w: %s data: %w: fetch the file again", ErrMalformed, how, err)
	}
	return image, nil
}

// checkXZ refuses a dictionary larger than maxWindow before the decoder
// allocates it. Only the first block is looked at: an encoder uses one size
// for all (The .xz File Format, version 1.2.1, sections 3.1 and 5.3.1).
func checkXZ(raw []byte) error {
	const streamHeader = 12
	if len(raw) < streamHeader+2 {
		return fmt.Errorf("%w: xz data end early: fetch the file again", ErrTruncated)
	}
	block := raw[streamHeader:]
	if block[0] == 0 {
		return nil // the index: a stream without blocks
	}
	flags, rest := block[1], block[2:]
	skip := 0 // compressed size, then uncompressed size, where present
	if flags&0x40 != 0 {
		skip++
	}
	if flags&0x80 != 0 {
		skip++
	}
	for ; skip > 0; skip-- {
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return fmt.Errorf("%w: xz block header: fetch the file again", ErrMalformed)
		}
		rest = rest[n:]
	}
	const lzma2 = 0x21
	if len(rest) < 3 || rest[0] != lzma2 || rest[1] != 1 {
		return nil // the decoder refuses it with a better reason
	}
	bits := uint(rest[2] & 0x3f)
	if bits > 40 {
		return fmt.Errorf("%w: xz dictionary size: fetch the file again", ErrMalformed)
	}
	if size := uint64(2|bits&1) << (bits/2 + 11); size > maxWindow {
		return fmt.Errorf("%w: xz dictionary of %d bytes, at most %d: compress it with xz --lzma2=dict=1MiB", ErrTooLarge, size, maxWindow)
	}
	return nil
}
