// Package machine runs a command in a disposable virtual machine: a stock kernel
// of the distribution, this program as its init, and, where the command is the
// user's, the host's own root file system, read-only below a temporary layer.
package machine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// setup is what the guest does before it is ready; it travels in the initramfs.
type setup struct {
	PortModules []string // files to load, in order: the ports to the host need them
	Modules     []string // and those that are loaded then
}

// job is what a guest that is ready is to do. The host sends its length in 32 bits, little
// endian, its JSON, and the contents of its files.
type job struct {
	Argv    []string
	Env     []string
	Dir     string
	RootFS  string // by which file system the host's root comes; "": it does not
	Overlay bool   // before it comes a root of programs for this kernel
	Result  bool   // the command writes one
	// Lib is the directory of the guest kernel's modules on the host.
	Lib   string
	Files []jobFile
	// A machine may have been asleep: what time it is, in ns since 1970, and bytes that no
	// other machine of the same sleep has got.
	Time int64
	Seed []byte
}

type jobFile struct {
	Name string
	Mode fs.FileMode
	Size int64
}

// maxJob bounds the JSON of a job: it has the caller's environment.
const maxJob = 64 << 20

func (j *job) send(w io.Writer, files []File) error {
	j.Files = nil
	for _, f := range files {
		j.Files = append(j.Files, jobFile{f.Name, f.Mode, int64(len(f.Content))})
	}
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if len(b) > maxJob {
		return fmt.Errorf("the machine's job has %d bytes: at most %d are expected", len(b), maxJob)
	}
	if _, err := w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
		return err
	}
	for _, f := range files {
		if _, err := w.Write(f.Content); err != nil {
			return err
		}
	}
	return nil
}

// receiveJob reads a job, and writes its files below a root.
func receiveJob(r io.Reader, root string) (*job, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("reading the job: %w", err)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxJob {
		return nil, fmt.Errorf("a job of %d bytes: at most %d are expected", n, maxJob)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("reading the job: %w", err)
	}
	j := new(job)
	if err := json.Unmarshal(b, j); err != nil {
		return nil, fmt.Errorf("reading the job: %w", err)
	}
	for _, f := range j.Files {
		if err := receiveFile(r, filepath.Join(root, f.Name), f); err != nil {
			return nil, fmt.Errorf("receiving %s: %w", f.Name, err)
		}
	}
	return j, nil
}

func receiveFile(r io.Reader, name string, f jobFile) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, f.Mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.CopyN(out, r, f.Size)
	return errors.Join(err, out.Close())
}

// Paths in the initramfs.
const (
	setupFile = "/kedr-setup.json"
	initPath  = "/init"
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
