package probe

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// pageMap says where the struct pages begin, and where the linear addresses of the pages
// themselves: by the kernel's variables or, where it has none or hides them, by pages
// that are freed. It also sees to it that the size of a struct page is known.
func (s *Set) pageMap() (structs, linear uint64, err error) {
	if s.has("vmemmap_base") && s.has("page_offset_base") && s.layout.StructPage > 0 {
		values := make([]uint64, 2)
		for i, name := range []string{"vmemmap_base", "page_offset_base"} {
			at, _, err := s.find(name)
			if err == nil {
				values[i], err = s.word(at)
			}
			if err != nil {
				return 0, 0, err
			}
		}
		return values[0], values[1], nil
	}
	seen, err := s.freedPages()
	if err != nil {
		return 0, 0, fmt.Errorf("measuring where their structures are: %w", err)
	}
	size, structs, linear, err := solvePages(seen, s.kernel.Word())
	if err != nil {
		return 0, 0, err
	}
	if known := s.layout.StructPage; known > 0 && known != size {
		return 0, 0, fmt.Errorf("struct page has %d bytes by the pages that were looked at, and %d by the debug information", size, known)
	}
	s.layout.StructPage = size
	if Trace != nil {
		Trace("struct pages of %d bytes from %#x on are those of addresses from %#x on (%d pages were looked at)", size, structs, linear, len(seen))
	}
	return structs, linear, nil
}

// freedPage is a page by its linear address and its struct page.
type freedPage struct{ address, page uint64 }

// solvePages finds the line that all pages lie on. The addresses may be taken for
// further down than there are any.
func solvePages(seen []freedPage, word int) (size uint32, structs, linear uint64, err error) {
	var first *freedPage
	for i := range seen {
		p := &seen[i]
		if first == nil {
			first = p
			continue
		}
		pages := int64(p.address>>12) - int64(first.address>>12)
		bytes := int64(p.page) - int64(first.page)
		switch {
		case pages == 0 && bytes == 0:
			continue
		case pages == 0 || bytes%pages != 0 || bytes/pages < 24 || bytes/pages > 256 || size > 0 && int64(size) != bytes/pages:
			return 0, 0, 0, errors.New("the pages that were looked at do not lie on one line")
		}
		size = uint32(bytes / pages)
	}
	if size == 0 {
		return 0, 0, 0, errors.New("too few pages were seen")
	}
	// 1 GiB of 32-bit addresses, 64 TiB of others (Documentation/x86/x86_64/mm.rst).
	linear = first.address &^ (1<<30 - 1)
	if word == 8 {
		linear = first.address&^4095 - 1<<46
	}
	return size, first.page - (first.address-linear)>>12*uint64(size), linear, nil
}

// freedPages watches free_pages(addr, order) turn the address of a page into its struct
// page, for __free_pages(page, order). Who waits for many files at once makes the kernel
// take several pages, and give them back (fs/select.c, poll_freewait).
func (s *Set) freedPages() ([]freedPage, error) {
	answer, err := ebpf.NewMap(s.spec.Maps["answer"])
	if err != nil {
		return nil, permission(fmt.Errorf("making map answer: %w", err))
	}
	defer answer.Close()
	err = WithTracefs(func(dir string) (err error) {
		if err := removeStale(dir); err != nil {
			return err
		}
		for i, function := range []string{"free_pages", "__free_pages"} {
			constants := s.constants(kedrProbeSpec{Args: 2, Id: uint32(i)})
			constants["asker"] = uint32(os.Getpid())
			prog, err := s.load("argument", constants, "", map[string]*ebpf.Map{"answer": answer})
			if err != nil {
				return err
			}
			defer prog.Close()
			event := fmt.Sprintf("pages%d", i)
			a, err := s.attachKprobe(dir, event, "p", function, prog)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.close(), removeKprobe(dir, s.jumps, event)) }()
		}
		return pollMany()
	})
	if err != nil {
		return nil, err
	}
	var found kedrAnswer
	if err := answer.Lookup(uint32(0), &found); err != nil {
		return nil, err
	}
	return pairPages(found.Word[:min(found.N, uint64(len(found.Word)))]), nil
}

// pairPages takes the words apart in which argument has marked what was called: pages
// whose struct page was seen right after.
func pairPages(words []uint64) []freedPage {
	const second = 1 // free_pages is aligned; a struct page, too
	var out []freedPage
	for i := 0; i+1 < len(words); i++ {
		if words[i]&second == 0 && words[i+1]&second != 0 && words[i] != 0 {
			out = append(out, freedPage{words[i], words[i+1] &^ second})
		}
	}
	return out
}

// pollMany waits for many files at once, a moment.
func pollMany() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	fds := make([]unix.PollFd, 1000)
	for i := range fds {
		fds[i] = unix.PollFd{Fd: int32(r.Fd()), Events: unix.POLLIN}
	}
	for {
		_, err := unix.Poll(fds, 1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
