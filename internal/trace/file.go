package trace

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
)

// A trace file is a zstd stream of a CBOR sequence (RFC 8742): a Magic, the Header, then
// Records. Fields have numbers, and a reader passes over those that it does not know.

// Magic is the first item of a trace file.
const Magic = "kedr-trace"

// Errors of readers.
var (
	ErrNotTrace = errors.New("this is no trace of kedr")
	ErrCutOff   = errors.New("the trace is cut off: who wrote it did not end it")
)

// VersionError says that a trace is of a later version than this program reads.
type VersionError struct{ Version int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the trace has format version %d, and this kedr reads up to %d: read it with a newer kedr", e.Version, Version)
}

// Writer writes a trace file.
type Writer struct {
	z   *zstd.Encoder
	enc *cbor.Encoder
}

// NewWriter writes a header to w, and returns a Writer of what follows.
func NewWriter(w io.Writer, h *Header) (*Writer, error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	mode, err := cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode()
	if err != nil {
		return nil, err
	}
	t := &Writer{z: z, enc: mode.NewEncoder(z)}
	if err := errors.Join(t.enc.Encode(Magic), t.enc.Encode(h), z.Flush()); err != nil {
		return nil, fmt.Errorf("writing the trace: %w", err)
	}
	return t, nil
}

// Write writes a record.
func (t *Writer) Write(r *Record) error {
	if err := t.enc.Encode(r); err != nil {
		return fmt.Errorf("writing the trace: %w", err)
	}
	return nil
}

// Flush lets a reader see what has been written.
func (t *Writer) Flush() error {
	if err := t.z.Flush(); err != nil {
		return fmt.Errorf("writing the trace: %w", err)
	}
	return nil
}

// Close ends the file; the last record should have been an End.
func (t *Writer) Close() error {
	if err := t.z.Close(); err != nil {
		return fmt.Errorf("writing the trace: %w", err)
	}
	return nil
}

// Reader reads a trace file.
type Reader struct {
	Header Header

	z     *zstd.Decoder
	dec   *cbor.Decoder
	sites map[uint32]bool
	ended bool
}

// Limits of what a file may ask for.
const (
	maxFunctions = 1 << 16
	maxTargets   = 64
	maxSites     = 1 << 20
	maxWindow    = 32 << 20
)

// NewReader reads the beginning of a trace file. Errors: ErrNotTrace, ErrCutOff,
// *VersionError.
func NewReader(r io.Reader) (*Reader, error) {
	z, err := zstd.NewReader(bufio.NewReader(r), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	mode, err := cbor.DecOptions{MaxNestedLevels: 8, MaxArrayElements: maxFunctions, MaxMapPairs: 64}.DecMode()
	if err != nil {
		return nil, err
	}
	t := &Reader{z: z, dec: mode.NewDecoder(z), sites: make(map[uint32]bool)}
	var magic string
	if err := t.dec.Decode(&magic); err != nil || magic != Magic {
		z.Close()
		return nil, ErrNotTrace
	}
	if err := t.dec.Decode(&t.Header); err != nil {
		z.Close()
		return nil, t.broken(err)
	}
	if err := t.Header.check(); err != nil {
		z.Close()
		return nil, err
	}
	return t, nil
}

// broken tells a file that ends too early from one that is wrong.
func (t *Reader) broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrCutOff
	}
	return fmt.Errorf("the trace can't be read: %w", err)
}

var errWrong = errors.New("the trace can't be read")

func (h *Header) check() error {
	switch {
	case h.Version < 1:
		return fmt.Errorf("%w: it has no version", errWrong)
	case h.Version > Version:
		return &VersionError{h.Version}
	case len(h.Functions) > maxFunctions || len(h.Targets) > maxTargets:
		return fmt.Errorf("%w: it has %d functions of %d targets", errWrong, len(h.Functions), len(h.Targets))
	}
	for _, f := range h.Functions {
		if f.Target < 0 || f.Target >= max(len(h.Targets), 1) {
			return fmt.Errorf("%w: %q is a function of target %d, of %d", errWrong, f.Name, f.Target, len(h.Targets))
		}
		for _, c := range f.Captures {
			if c.Param < -1 || c.Param >= len(f.Params) {
				return fmt.Errorf("%w: %q records parameter %d, of %d", errWrong, f.Name, c.Param, len(f.Params))
			}
		}
		for _, p := range f.Params {
			if p.Slot < 0 || p.Type.Size < 0 {
				return fmt.Errorf("%w: parameter %q of %q", errWrong, p.Name, f.Name)
			}
		}
	}
	return nil
}

// Next reads a record into r. Errors: io.EOF after the last one, ErrCutOff where it is not
// an End.
func (t *Reader) Next(r *Record) error {
	*r = Record{}
	err := t.dec.Decode(r)
	if errors.Is(err, io.EOF) && t.ended {
		return io.EOF
	}
	if err != nil {
		return t.broken(err)
	}
	switch {
	case r.Site != nil:
		if len(t.sites) >= maxSites {
			return fmt.Errorf("%w: it has more than %d sites", errWrong, maxSites)
		}
		t.sites[r.Site.ID] = true
		if r.Site.Target < 0 || r.Site.Target >= max(len(t.Header.Targets), 1) {
			return fmt.Errorf("%w: a site in target %d, of %d", errWrong, r.Site.Target, len(t.Header.Targets))
		}
	case r.Event != nil:
		return t.Header.checkEvent(r.Event, t.sites)
	case r.End != nil:
		t.ended = true
	}
	return nil
}

func (h *Header) checkEvent(e *Event, sites map[uint32]bool) error {
	if e.Target < 0 || e.Target >= max(len(h.Targets), 1) {
		return fmt.Errorf("%w: an event of target %d, of %d", errWrong, e.Target, len(h.Targets))
	}
	if e.Site != 0 && !sites[e.Site] {
		return fmt.Errorf("%w: an event at site %d, which has not been named", errWrong, e.Site)
	}
	if e.What != Call && e.What != Return && e.What != Whole {
		return nil
	}
	if e.Function < 0 || e.Function >= len(h.Functions) {
		return fmt.Errorf("%w: an event of function %d, of %d", errWrong, e.Function, len(h.Functions))
	}
	for _, c := range e.Captured {
		if c.Capture < 0 || c.Capture >= len(h.Functions[e.Function].Captures) {
			return fmt.Errorf("%w: capture %d of %q", errWrong, c.Capture, h.Functions[e.Function].Name)
		}
	}
	return nil
}

// Close lets go of the reader.
func (t *Reader) Close() { t.z.Close() }
