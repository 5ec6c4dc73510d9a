package symbolize

import (
	"strings"

	"kedr/internal/target"
)

// node is a function of the module, by its index in target.Module.Funcs, or an
// import, by name. A function stands for its cold part too.
type node struct {
	fn     int    // -1 for an import
	symbol string // "" for a function
}

// edge is what leads from a function to another by a tail call.
type edge struct {
	to    node
	sites []target.Call
}

// graph is the tail calls of a module.
type graph map[int][]edge

func newGraph(m *target.Module) graph {
	g := make(graph)
	at := make(map[[2]node]int) // index of an edge in its list
	for _, c := range m.Calls {
		from := m.FuncIndex(c.Section, c.End-1)
		if !c.Tail || from < 0 {
			continue
		}
		from = m.Hot(from)
		to := callee(m, c)
		key := [2]node{{fn: from}, to}
		i, ok := at[key]
		if !ok {
			i = len(g[from])
			at[key] = i
			g[from] = append(g[from], edge{to: to})
		}
		g[from][i].sites = append(g[from][i].sites, c)
	}
	return g
}

// callee returns where a call goes.
func callee(m *target.Module, c target.Call) node {
	if c.Import {
		return node{-1, c.Symbol}
	}
	return node{fn: m.Hot(c.Callee)}
}

// hop is a function that gave up its frame, with the jumps that may have done it.
type hop struct {
	fn    int
	sites []target.Call
}

// way is how a function leads to another by tail calls alone, outermost first;
// empty where that cannot be told.
type way struct {
	hops []hop
	to   node
}

// search walks the tail calls from a function, nearest first, and returns the
// shortest way to goal if there is but one. Several jumps from one function to
// another count as one. With a nil goal the way leads to the only import that
// can be reached.
func (g graph) search(from int, goal *node) way {
	type state struct {
		distance, ways int
		previous       node
		sites          []target.Call
	}
	start := node{fn: from}
	states := map[node]*state{start: {ways: 1}}
	var imports []node
	for queue := []node{start}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		s := states[n]
		if goal != nil && states[*goal] != nil && states[*goal].distance <= s.distance {
			break // all the shortest ways have been seen
		}
		if n.fn < 0 {
			continue
		}
		for _, e := range g[n.fn] {
			t := states[e.to]
			if t == nil {
				states[e.to] = &state{s.distance + 1, s.ways, n, e.sites}
				queue = append(queue, e.to)
				if e.to.fn < 0 {
					imports = append(imports, e.to)
				}
			} else if t.distance == s.distance+1 {
				t.ways = min(t.ways+s.ways, 2)
			}
		}
	}
	if goal == nil {
		// A jump through a pointer may go anywhere, so it counts as one more.
		if len(imports) != 1 || strings.HasPrefix(imports[0].symbol, "__x86_indirect_") {
			return way{}
		}
		goal = &imports[0]
	}
	s := states[*goal]
	if s == nil || s.ways != 1 || *goal == start {
		return way{}
	}
	w := way{to: *goal}
	for n := *goal; n != start; n = states[n].previous {
		w.hops = append(w.hops, hop{states[n].previous.fn, states[n].sites})
	}
	for i, j := 0, len(w.hops)-1; i < j; i, j = i+1, j-1 {
		w.hops[i], w.hops[j] = w.hops[j], w.hops[i]
	}
	return w
}
