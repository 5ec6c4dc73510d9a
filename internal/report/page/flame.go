package page

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"kedr/internal/leak"
	"kedr/internal/report/wording"
)

// A flame graph of what leaked: callers above, what they called below, as wide as the
// bytes, or the objects, that were obtained there.

const (
	// Of larger graphs the widest frames are drawn; a thousandth of the width can't be
	// seen.
	maxDrawn  = 1500
	minDrawn  = 0.001
	minNamed  = 0.015 // of the width: a narrower frame has no room for a letter
	maxFrames = 20000 // that one can zoom into
	rowHeight = 20    // pixels
)

// measure is what the width of a frame stands for.
type measure struct {
	Name string
	of   func(*flameNode) uint64
}

var measures = []measure{
	{"bytes", func(n *flameNode) uint64 { return n.bytes }},
	{"objects", func(n *flameNode) uint64 { return n.objects }},
}

// flameNode is a function by the way it was called.
type flameNode struct {
	name    string
	class   string // whose function it is
	parent  *flameNode
	depth   int
	order   int // callers before callees
	bytes   uint64
	objects uint64
	callees []*flameNode
	index   map[[2]string]*flameNode
}

// Whose function a frame is, as the style sheet calls it.
const (
	classRoot      = "r"
	classTarget    = "t"
	classModule    = "m" // another module's
	classKernel    = "k"
	classAllocator = "a" // that handed out the object
)

func (n *flameNode) callee(name, class string) *flameNode {
	key := [2]string{name, class}
	c := n.index[key]
	if c == nil {
		c = &flameNode{name: name, class: class, parent: n, depth: n.depth + 1}
		if n.index == nil {
			n.index = make(map[[2]string]*flameNode)
		}
		n.index[key] = c
		n.callees = append(n.callees, c)
	}
	return c
}

// newFlame merges the call stacks of all leaks. The nodes are sorted by width, callers
// before callees.
func newFlame(r *leak.Report) []*flameNode {
	root := &flameNode{name: "all", class: classRoot}
	for _, l := range r.PossibleLeaks {
		n := root
		n.add(l)
		for _, f := range slices.Backward(l.Stack) {
			n = n.callee(frameName(f), frameClass(r, f))
			n.add(l)
		}
		if l.Function != "" {
			n = n.callee(wording.Printable(l.Function), classAllocator)
			n.add(l)
		}
	}
	var nodes []*flameNode
	var walk func(*flameNode)
	walk = func(n *flameNode) {
		n.order = len(nodes)
		nodes = append(nodes, n)
		slices.SortStableFunc(n.callees, wider)
		for _, c := range n.callees {
			walk(c)
		}
	}
	walk(root)
	slices.SortStableFunc(nodes, wider)
	return nodes
}

func (n *flameNode) add(l leak.Leak) {
	n.bytes += l.Bytes
	n.objects += l.Count
}

// wider sorts: what nobody knows the size of by its number.
func wider(a, b *flameNode) int {
	return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(b.objects, a.objects), cmp.Compare(a.order, b.order))
}

func frameName(f leak.Frame) string {
	name := wording.Printable(f.Function)
	if name == "" {
		name = fmt.Sprintf("%#x", uint64(f.Address))
	}
	if f.Module != "" {
		name += " [" + wording.Printable(f.Module) + "]"
	}
	return name
}

func frameClass(r *leak.Report, f leak.Frame) string {
	switch f.Module {
	case "":
		return classKernel
	case r.Target.Name:
		return classTarget
	}
	return classModule
}

// flame is one graph as it is drawn.
type flame struct {
	Measure string
	Height  int
	Frames  []flameFrame
	Narrow  uint64 // frames that are not drawn
}

// flameFrame is one frame: X and Width in percent, Y in pixels.
type flameFrame struct {
	X, Width string
	Y        int
	Class    string
	Name     string // empty where there is no room
	Title    string
}

// draw lays out the widest frames.
func draw(nodes []*flameNode, m measure) flame {
	f := flame{Measure: m.Name}
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, func(a, b *flameNode) int { return cmp.Compare(m.of(b), m.of(a)) })
	total := float64(m.of(nodes[0]))
	drawn := make(map[*flameNode]bool)
	for _, n := range nodes {
		if len(drawn) == maxDrawn || total == 0 || float64(m.of(n)) < total*minDrawn {
			break
		}
		drawn[n] = true
	}
	f.Narrow = uint64(len(nodes) - len(drawn))
	if len(drawn) == 0 {
		return f
	}
	var walk func(n *flameNode, x float64)
	walk = func(n *flameNode, x float64) {
		width := float64(m.of(n)) / total
		frame := flameFrame{
			X: percent(x), Width: percent(width), Y: n.depth * rowHeight, Class: n.class,
			Title: n.title(nodes[0], m),
		}
		if width >= minNamed {
			frame.Name = n.name
		}
		f.Height = max(f.Height, frame.Y+rowHeight)
		f.Frames = append(f.Frames, frame)
		callees := slices.Clone(n.callees)
		slices.SortStableFunc(callees, func(a, b *flameNode) int { return cmp.Compare(m.of(b), m.of(a)) })
		for _, c := range callees {
			if drawn[c] {
				walk(c, x)
				x += float64(m.of(c)) / total
			}
		}
	}
	walk(nodes[0], 0)
	return f
}

func percent(x float64) string { return strconv.FormatFloat(x*100, 'f', -1, 32) + "%" }

// title is what a frame says of itself; report.js says the same.
func (n *flameNode) title(root *flameNode, m measure) string {
	share := float64(m.of(n)) / float64(m.of(root)) * 100
	return fmt.Sprintf("%s: %s, %s (%.1f%% of the %s)", n.name, grouped(n.bytes, "byte"), grouped(n.objects, "object"), share, m.Name)
}

// flameData is the graph as the page's program reads it: callers before callees, four
// numbers a frame: its caller (-1: none), its name, bytes and objects.
type flameData struct {
	Names   []string `json:"names"`
	Classes []string `json:"classes"` // of names
	Frames  []int64  `json:"frames"`
}

func newFlameData(nodes []*flameNode) flameData {
	d := flameData{Names: []string{}, Classes: []string{}, Frames: []int64{}}
	names := make(map[[2]string]int64)
	at := make(map[*flameNode]int64)
	for i, n := range nodes[:min(len(nodes), maxFrames)] {
		key := [2]string{n.name, n.class}
		name, ok := names[key]
		if !ok {
			name = int64(len(names))
			names[key] = name
			d.Names = append(d.Names, n.name)
			d.Classes = append(d.Classes, n.class)
		}
		caller := int64(-1)
		if n.parent != nil {
			caller = at[n.parent]
		}
		at[n] = int64(i)
		d.Frames = append(d.Frames, caller, name, int64(n.bytes), int64(n.objects))
	}
	return d
}
