package machine

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// The guest speaks to its host over a virtio port in frames: a type, the length
// in 32 bits, little endian, and that many bytes. A serial port needs no modules,
// but takes 3 s a megabyte under emulation; the virtio port some 20 ms.
type frameType byte

const (
	frameAlive    frameType = 'h' // every second
	frameReady    frameType = 'y' // the guest waits for its job
	frameProgress frameType = 'p' // what is being done
	frameStdout   frameType = 'o'
	frameStderr   frameType = 'e'
	frameResult   frameType = 'r' // a piece of the result
	frameExit     frameType = 'x' // exit status, 32 bits; the last
	frameFailed   frameType = 'f' // why the command could not be started; the last
)

// maxFrame bounds what a guest can make its host store at once.
const maxFrame = 1 << 20

func readFrame(r io.Reader) (frameType, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("the machine sent a frame of %d bytes: at most %d are expected", n, maxFrame)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return frameType(head[0]), b, err
}

// frameWriter writes whole frames, from any goroutine.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frameWriter) write(t frameType, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for first := true; first || len(b) > 0; first = false {
		n := min(len(b), maxFrame)
		head := append([]byte{byte(t)}, binary.LittleEndian.AppendUint32(nil, uint32(n))...)
		if _, err := f.w.Write(append(head, b[:n]...)); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// stream is one type of frame as a writer.
type stream struct {
	frames *frameWriter
	typ    frameType
}

func (s stream) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return len(b), s.frames.write(s.typ, b)
}
