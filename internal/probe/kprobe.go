package probe

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kedr/internal/kernel"
)

// end is which end of a function's calls a kprobe is at.
type end int

const (
	noKprobe end = iota
	atEntry
	atReturn
)

// The programs that do at kprobes what others do in trampolines.
var kprobePrograms = map[string][2]string{
	"obtain_exit":        {"obtain_call", "obtain_return"},
	"obtain_bulk":        {"obtain_call", "obtain_bulk_return"},
	"obtain_bulk_short":  {"obtain_call", "obtain_bulk_short_return"},
	"release_entry":      {"release_call"},
	"release_bulk":       {"release_bulk_call"},
	"release_bulk_short": {"release_bulk_short_call"},
	"module_coming":      {"module_coming_kprobe"},
	"module_going":       {"module_going_kprobe"},
	"module_live":        {"module_live_kprobe"},
}

// attachByKprobes puts on kprobes what would be in a trampoline. The one at the return
// comes first: of two at one place that which was attached last runs first, and then
// finds the return address as it was.
func (s *Set) attachByKprobes(program string, spec kedrProbeSpec, symbol string) error {
	programs := kprobePrograms[program]
	return WithTracefs(func(dir string) error {
		if err := removeStale(dir); err != nil {
			return err
		}
		first := len(s.attached)
		for _, at := range []end{atReturn, atEntry} {
			name := programs[at-atEntry]
			if name == "" {
				continue
			}
			if err := s.attachEnd(dir, name, spec, symbol, at); err != nil {
				// One end is worth nothing without the other.
				for _, a := range s.attached[first:] {
					err = errors.Join(err, a.close())
				}
				s.attached = s.attached[:first]
				return err
			}
		}
		return nil
	})
}

func (s *Set) attachEnd(dir, program string, spec kedrProbeSpec, symbol string, at end) error {
	prog, err := s.load(program, s.constants(spec), "", nil)
	if err != nil {
		return err
	}
	defer prog.Close()
	kind := "p"
	if at == atReturn {
		kind = "r" + strconv.Itoa(maxActive)
	}
	a, err := s.attachKprobe(dir, endEvent(spec.Id, at), kind, symbol, prog)
	if err != nil {
		return err
	}
	a.Symbol, a.id, a.kprobe = symbol, spec.Id, at
	s.attached = append(s.attached, a)
	return nil
}

// maxActive is how many calls of one function may be under way at once. The kernel makes
// room for each beforehand. More are counted as missed.
const maxActive = 256

func endEvent(id uint32, at end) string { return fmt.Sprintf("%c%03d", " er"[at], id) }

// kprobeHits is what the kernel counts of one kprobe.
type kprobeHits struct{ hits, missed uint64 }

// parseHits reads the lines of kprobe_profile "name hits misses"
// (kernel/trace/trace_kprobe.c, probes_profile_seq_show).
func parseHits(b []byte) (map[string]kprobeHits, error) {
	hits := make(map[string]kprobeHits)
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) != 3 {
			continue
		}
		n, err1 := strconv.ParseUint(f[1], 10, 64)
		m, err2 := strconv.ParseUint(f[2], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("kprobe_profile: %q: %w", sc.Text(), err)
		}
		hits[f[0]] = kprobeHits{n, m}
	}
	return hits, sc.Err()
}

// runs reads how often the programs at kprobes have run, by the number of the probe;
// those at returns come behind those at entries.
func (s *Set) runs() ([]uint64, error) {
	b, err := s.bssBytes()
	if err != nil {
		return nil, err
	}
	b = b[s.bss["ran"].Offset:]
	runs := make([]uint64, 2*maxProbes)
	for i := range runs {
		runs[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return runs, nil
}

// lostByKprobes counts the calls that the kernel ran no program for: it counts those
// that it did not see a kprobe through for; of those where a program was running on the
// CPU it only knows that the kprobe was hit, which is held against how often the program
// has run. Others call these functions meanwhile: it is looked again until nobody has.
func (s *Set) lostByKprobes() ([]Lost, error) {
	if !s.kprobes {
		return nil, nil
	}
	var out []Lost
	err := WithTracefs(func(dir string) error {
		// Opening it and its first reading allocate by functions that may be watched.
		f, err := os.Open(filepath.Join(dir, "kprobe_profile"))
		if err != nil {
			return err
		}
		defer f.Close()
		text := make([]byte, 1<<16)
		profile := func() (map[string]kprobeHits, error) {
			n := 0
			for n < len(text) {
				m, err := f.ReadAt(text[n:], int64(n))
				n += m
				if errors.Is(err, io.EOF) {
					return parseHits(text[:n])
				}
				if err != nil {
					return nil, err
				}
			}
			return nil, fmt.Errorf("kprobe_profile has more than %d bytes", n)
		}
		if _, err := profile(); err != nil {
			return err
		}
		lost := make(map[int]uint64)
		unsettled := make(map[int]bool)
		for i, a := range s.attached {
			unsettled[i] = a.kprobe != noKprobe
		}
		for try := 0; try < 50 && len(unsettled) > 0; try++ {
			if try > 0 {
				time.Sleep(time.Duration(try) * 100 * time.Microsecond)
			}
			before, err := profile()
			if err != nil {
				return err
			}
			runs, err := s.runs()
			if err != nil {
				return err
			}
			after, err := profile()
			if err != nil {
				return err
			}
			for i := range unsettled {
				a := &s.attached[i]
				if a.kprobe == noKprobe {
					delete(unsettled, i)
					continue
				}
				ran := runs[int(a.kprobe-atEntry)*maxProbes+int(a.id)]
				h, h2 := before[endEvent(a.id, a.kprobe)], after[endEvent(a.id, a.kprobe)]
				// Of a busy function at least so many.
				lost[i] = h.missed
				if h.hits > ran {
					lost[i] += h.hits - ran
				}
				if h == h2 {
					delete(unsettled, i)
				}
			}
		}
		// Of a function once, whatever was missed of it.
		add := func(a *Attached, count uint64, reason string) {
			if count == 0 {
				return
			}
			i := slices.IndexFunc(out, func(l Lost) bool { return l.Probe == int(a.id) && l.Reason == reason })
			if i < 0 {
				i = len(out)
				out = append(out, Lost{Probe: int(a.id), Symbol: a.Symbol, Reason: reason})
			}
			out[i].Count += count
		}
		for i := range s.attached {
			add(&s.attached[i], lost[i], reasonKprobe)
			if unsettled[i] {
				add(&s.attached[i], 1, reasonUnsettled)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("asking about the kprobes: %w", err)
	}
	unreturned, err := s.unreturned()
	return append(out, unreturned...), err
}

// unreturned counts the calls of targets that are gone, of which no return was seen.
func (s *Set) unreturned() ([]Lost, error) {
	loads, err := s.Loads()
	if err != nil {
		return nil, err
	}
	gone := make(map[uint32]bool)
	for _, l := range loads {
		gone[l.ID] = l.Unloaded > 0
	}
	counts := make(map[uint32]uint64)
	err = each(s.shared["open_calls"], func(key uint64, c *kedrOpenCall) {
		if gone[c.Load] {
			counts[s.openProbe(key)]++
		}
	})
	var out []Lost
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, Lost{Probe: int(id), Count: counts[id], Reason: reasons[lostReturn]})
	}
	return out, err
}

// openProbe is the probe that a key of open_calls has in it (bpf/kprobe.c, open_key):
// the highest 16 bits are alike in all of the kernel's addresses.
func (s *Set) openProbe(key uint64) uint32 {
	top := uint32(key >> 48)
	if s.kernel.Word() == 8 {
		top ^= 0xffff
	}
	return top - 1
}

const (
	reasonKprobe    = "the kernel runs no kprobe's program while another one runs on the CPU"
	reasonUnsettled = "it is called too often to tell whether a call was missed"
)

// LostSoFar is Lost for a session in which no target has been loaded yet: calls that
// others have made meanwhile are of no interest. What is not certain is left out.
func (s *Set) LostSoFar() ([]Lost, error) {
	if !s.kprobes {
		return nil, nil
	}
	awaitDeferred()
	lost, err := s.Lost()
	return slices.DeleteFunc(lost, func(l Lost) bool { return l.Reason == reasonUnsettled }), err
}

// awaitDeferred waits for what arming has given back, the types of its programs for one, to
// be freed: the kernel defers that, and it may be called in an interrupt of a kprobe. Should
// it take longer, a loss is told that is none; not the other way round.
func awaitDeferred() {
	// include/uapi/linux/membarrier.h, MEMBARRIER_CMD_GLOBAL: a grace period. What waits for one is
	// called soon after, and before the next has ended.
	const global = 1
	for range 2 {
		if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
			return
		}
	}
}

// placeWords turns numbers of parameters into those of words of the machine, where these
// are not the same: gcc's function_arg_32 passes three words in registers, and what does
// not fit there on the stack, with all that follows.
func (s *Set) placeWords(spec *kedrProbeSpec, params []kernel.Param) error {
	if s.kernel.Word() == 8 {
		return nil
	}
	at, n, err := words(params)
	if err != nil {
		return err
	}
	spec.Args, spec.Narrow = n, 0 // a register holds nothing else
	for _, arg := range []*uint8{
		&spec.Address, &spec.Count, &spec.SizeA, &spec.SizeB, &spec.SkipIf, &spec.Replaces, &spec.Owner, &spec.Last, &spec.List,
	} {
		if int(*arg) < len(at) {
			*arg = at[*arg]
		}
	}
	return nil
}

// words says in which word of 32 bits each parameter begins, and how many there are.
func words(params []kernel.Param) ([]uint8, uint8, error) {
	const registers, maxWords = 3, 6
	at := make([]uint8, len(params))
	next := 0
	for i, p := range params {
		n := max(1, (p.Size+3)/4)
		if p.Class == kernel.Pointer {
			n = 1
		}
		if next < registers && next+n > registers {
			next = registers // the registers that are left stay unused
		}
		at[i] = uint8(next)
		next += n
	}
	if next > maxWords {
		return nil, 0, fmt.Errorf("its parameters take %d words, and %d are looked at", next, maxWords)
	}
	return at, uint8(next), nil
}
