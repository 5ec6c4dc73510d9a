package probe

import (
	"fmt"

	"github.com/cilium/ebpf"

	"kedr/internal/plan"
)

// siteMaps is what the programs know about the targets' direct calls
// (bpf/caller.h, call_leads).
type siteMaps struct {
	keys  []uint64
	sites []kedrSite
	words []uint64
	first [][]uint32 // of each target's sections: where its bits begin in words
}

func newSiteMaps(p *plan.Plan) *siteMaps {
	m := &siteMaps{}
	for t, module := range p.Targets {
		first := make([]uint32, len(module.Sections))
		for i, sec := range module.Sections {
			first[i] = uint32(len(m.words))
			// A call may end with its section.
			m.words = append(m.words, make([]uint64, sec.Size/64+1)...)
		}
		m.first = append(m.first, first)
		for _, site := range p.Sites(module) {
			if len(site.Probes) == 0 {
				m.words[uint64(first[site.Section])+site.End/64] |= 1 << (site.End % 64)
				continue
			}
			var bits kedrSite
			for _, probe := range site.Probes {
				if probe < maxProbes {
					bits.Probes[probe/64] |= 1 << (probe % 64)
				}
			}
			m.keys = append(m.keys, uint64(t)<<56|uint64(site.Section)<<48|site.End)
			m.sites = append(m.sites, bits)
		}
	}
	return m
}

func (m *siteMaps) write(sites, elsewhere *ebpf.Map) error {
	if len(m.keys) > 0 {
		if _, err := sites.BatchUpdate(m.keys, m.sites, nil); err != nil {
			return fmt.Errorf("writing the call sites: %w", err)
		}
	}
	if len(m.words) > 0 {
		keys := make([]uint32, len(m.words))
		for i := range keys {
			keys[i] = uint32(i)
		}
		if _, err := elsewhere.BatchUpdate(keys, m.words, nil); err != nil {
			return fmt.Errorf("writing the call sites: %w", err)
		}
	}
	return nil
}
