package page

import (
	"bytes"
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/leak"
	"kedr/internal/report/sample"
	"kedr/internal/session"
)

func html(t testing.TB, o Options, reports ...*leak.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, reports, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestHTMLSource: two targets in one page, with the source around their leaks.
func TestHTMLSource(t *testing.T) {
	page := html(t, Options{Sources: sample.Examples(t)}, sample.Report(t, "hello"), sample.Report(t, "clean"))
	sample.Golden(t, "source.html", []byte(page))
}

// TestHTMLAlone: the page loads nothing, and says so to the browser.
func TestHTMLAlone(t *testing.T) {
	page := html(t, Options{Sources: sample.Examples(t)}, sample.Report(t, "odd"))
	for _, m := range regexp.MustCompile(`(?i)\b(src|href|srcset|action|data|poster|xlink:href|background)\s*=\s*"([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[2], "#") {
			t.Errorf("%s", m[0])
		}
	}
	for _, s := range []string{"@import", "url(", "<link", "<img", "<iframe", "<object", "style=", "onclick", "fetch(", "XMLHttpRequest", "innerHTML", "eval("} {
		if strings.Contains(page, s) {
			t.Errorf("%q in the page", s)
		}
	}
	if !strings.Contains(page, `content="default-src &#39;none&#39;; style-src &#39;sha256-`) {
		t.Error("no policy")
	}
	if n := strings.Count(page, "<script>"); n != 1 {
		t.Errorf("%d programs", n)
	}
}

// TestHTMLHostile: what a module, a process or a file calls itself stays text.
func TestHTMLHostile(t *testing.T) {
	evil := `</script></title><script>alert(1)</script><!--" onload='x'` + "\u202e\x1b[2J\u2028`${x}"
	r := sample.Report(t, "odd")
	r.Target = leak.Target{Name: evil, Path: evil}
	r.Kernel = leak.Kernel{Release: evil, Machine: evil}
	r.Notes = []string{evil}
	r.Lost = []leak.Lost{{Function: evil, Reason: evil, Count: 1}}
	r.Unwatched = []leak.Unwatched{{Function: evil, Reason: evil}}
	for i := range r.PossibleLeaks {
		l := &r.PossibleLeaks[i]
		l.Kind, l.Function, l.Comm, l.Fingerprint = evil, evil, evil, evil
		l.Objects[0].Comm = evil
		for j := range l.Stack {
			l.Stack[j].Function, l.Stack[j].Module, l.Stack[j].File = evil, evil, evil
		}
	}
	for i := range r.UnallocatedFrees {
		u := &r.UnallocatedFrees[i]
		u.Function, u.Comm, u.Kind = evil, evil, evil
		if u.Object != nil {
			u.Object.Function, u.Object.Kind, u.Object.Obtained.Comm = evil, evil, evil
		}
	}
	r.PossibleLeaks[1].Suppressed, r.PossibleLeaks[2].Known = evil, 1
	r.Suppressions, r.Baseline = []leak.Suppression{{Name: evil, File: evil, Line: 1, Leaks: 1}}, evil
	page := html(t, Options{}, r)
	if !strings.Contains(page, "suppressed by 1 suppression") || !strings.Contains(page, "known from the baseline <code>") {
		t.Error("not a word of what is left out")
	}
	if n := strings.Count(page, "<script"); n != 2 { // the program, and the graph's data
		t.Errorf("%d scripts", n)
	}
	for _, s := range []string{"<script>alert", "<!--", "\u202e", "\x1b", "\u2028"} {
		if strings.Contains(page, s) {
			t.Errorf("%q in the page", s)
		}
	}
	m := regexp.MustCompile(`(?s)<script type="application/json">(.*?)</script>`).FindStringSubmatch(page)
	var d flameData
	if m == nil || json.Unmarshal([]byte(m[1]), &d) != nil || !strings.HasPrefix(d.Names[1], "</script>") {
		t.Errorf("the graph's data is %s", m)
	}
}

// TestHTMLSize: a million objects are a page of a few megabytes, and what is not in it
// is said.
func TestHTMLSize(t *testing.T) {
	page := html(t, Options{}, sample.Many(1000, 1_000_000))
	t.Logf("%d bytes", len(page))
	if len(page) > 6<<20 {
		t.Errorf("%d bytes", len(page))
	}
	if !strings.Contains(page, "And 995 more, obtained later") {
		t.Error("nothing is said of the objects that are not listed")
	}
	page = html(t, Options{}, sample.Many(1500, 3000))
	if !strings.Contains(page, "in 500 call stacks with less are not listed here") {
		t.Error("nothing is said of the call stacks that are not listed")
	}
}

// TestFlame: frames lie below their caller, side by side, and none is lost.
func TestFlame(t *testing.T) {
	r := sample.Many(700, 1400)
	nodes := newFlame(r)
	if n := nodes[0]; n.bytes != r.LeakedBytes || n.objects != r.PossibleLeaksTotal || n.parent != nil {
		t.Fatalf("the root is %+v", n)
	}
	d := newFlameData(nodes)
	if len(d.Frames) != 4*len(nodes) {
		t.Errorf("%d numbers for %d frames", len(d.Frames), len(nodes))
	}
	for i := 0; i < len(d.Frames); i += 4 {
		if caller := d.Frames[i]; caller >= int64(i/4) || caller < 0 != (i == 0) {
			t.Fatalf("frame %d has caller %d", i/4, caller)
		}
	}
	for _, m := range measures {
		f := draw(nodes, m)
		if int(f.Narrow)+len(f.Frames) != len(nodes) || len(f.Frames) > maxDrawn || f.Narrow == 0 {
			t.Errorf("%s: %d drawn, %d not, of %d", m.Name, len(f.Frames), f.Narrow, len(nodes))
		}
		number := func(s string) float64 {
			x, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		const grain = 1e-3
		end := make(map[int]float64)
		for _, f := range f.Frames {
			x, width := number(f.X), number(f.Width)
			if x+grain < end[f.Y] || x+width > 100+grain {
				t.Fatalf("%s: %+v overlaps, or is out of the graph", m.Name, f)
			}
			end[f.Y] = x + width
			if f.Y > 0 && x+width > end[f.Y-rowHeight]+grain {
				t.Fatalf("%s: %+v is wider than its caller", m.Name, f)
			}
		}
	}
}

// TestFlameUnknown: objects of unknown size have a graph by their number alone.
func TestFlameUnknown(t *testing.T) {
	r := &leak.Report{PossibleLeaks: []leak.Leak{{Count: 2, Kind: "slab", Stack: []leak.Frame{{Address: 0x10}}}}}
	b := htmlBuilder{r: r}
	h := b.report(1)
	if len(h.Flames) != 1 || h.Flames[0].Measure != "objects" || h.Flames[0].Frames[1].Name != "0x10" || h.Timeline != nil {
		t.Errorf("%+v", h)
	}
	html(t, Options{}, r)
}

func TestTimeline(t *testing.T) {
	r := sample.Many(10, 100_000)
	r.PossibleLeaks[0].Objects[3].Size = 0
	tl := newTimeline(r)
	if tl.Unknown != 1 || tl.Objects != 99_999 || tl.Total != r.LeakedBytes-64 {
		t.Errorf("%+v", tl)
	}
	if n := strings.Count(tl.Path, "V"); n > maxPoints || n < maxPoints-1 {
		t.Errorf("%d points", n)
	}
	if !strings.HasPrefix(tl.Path, "M0 200H0V") || !strings.HasSuffix(tl.Path, "H1000V0H1000") {
		t.Errorf("from %.20s to %s", tl.Path, tl.Path[len(tl.Path)-20:])
	}
	// It only rises (downwards: the origin is above), and goes on.
	lastX, lastY := 0.0, math.Inf(1)
	for _, m := range regexp.MustCompile(`H([0-9.e+-]+)V([0-9.e+-]+)`).FindAllStringSubmatch(tl.Path, -1) {
		x, _ := strconv.ParseFloat(m[1], 64)
		y, _ := strconv.ParseFloat(m[2], 64)
		if x < lastX || y > lastY {
			t.Fatalf("%s after %v, %v", m[0], lastX, lastY)
		}
		lastX, lastY = x, y
	}
	for _, c := range []struct {
		times []float64
		want  string
	}{
		{[]float64{5}, "5.000000 5.000000 5.000000 5.000001 5.000001"},
		{[]float64{10.001, 10.004}, "10.00100 10.00175 10.00250 10.00325 10.00400"},
		{[]float64{0, 4000}, "0 1000 2000 3000 4000"},
	} {
		r := &leak.Report{PossibleLeaks: []leak.Leak{{}}}
		for _, at := range c.times {
			r.PossibleLeaks[0].Objects = append(r.PossibleLeaks[0].Objects, leak.Object{Size: 1, Time: at})
		}
		if got := strings.Join(newTimeline(r).Times, " "); got != c.want {
			t.Errorf("%v: %s", c.times, got)
		}
	}
}

// TestTimelineLoads: the axis goes from the first load to the last unload.
func TestTimelineLoads(t *testing.T) {
	r := &leak.Report{
		PossibleLeaks: []leak.Leak{{Objects: []leak.Object{{Size: 1, Time: 15}, {Size: 1, Time: 25}}}},
		Loads:         []leak.Load{{ID: 1, LoadedAt: 10, UnloadedAt: 20}, {ID: 2, LoadedAt: 22, UnloadedAt: 30}},
	}
	tl := newTimeline(r)
	want := []timeMark{{"0%", "load 1 loaded", false}, {"50%", "load 1 unloaded", false}, {"60%", "load 2 loaded", true}, {"100%", "load 2 unloaded", true}}
	if d := cmp.Diff(want, tl.Marks); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if tl.Path != "M0 200H250V100H750V0H1000" || tl.Times[0] != "10.0" {
		t.Errorf("%+v", tl)
	}
	for id := range uint32(5) {
		r.Loads = append(r.Loads, leak.Load{ID: 3 + id, LoadedAt: 40, UnloadedAt: 50})
	}
	if tl := newTimeline(r); len(tl.Marks) != 0 || !strings.HasPrefix(tl.Times[4], "50") {
		t.Errorf("of many: %+v", tl)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", math.MaxUint64: "18,446,744,073,709,551,615"} {
		if got := number(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 3 << 20: "3 MiB", 5 << 40: "5 TiB"} {
		if got := scaled(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

// TestContrast: each pair of colours that text has, in both schemes, is 4.5 to 1 at
// least, and what only shows a form 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11).
func TestContrast(t *testing.T) {
	light, rest, ok := strings.Cut(htmlStyle, "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("no dark scheme")
	}
	dark, rest, _ := strings.Cut(rest, "\n* {")
	if m := regexp.MustCompile(`#[0-9a-fA-F]{3,8}\b|\b(rgb|hsl)a?\(`).FindString(rest); m != "" {
		t.Errorf("the colour %s has no name", m)
	}
	pairs := []struct {
		ratio      float64
		texts, all string // on all of these
	}{
		{4.5, "text dim link", "page panel"}, {4.5, "dim", "area"},
		{4.5, "clean", "clean-page"}, {4.5, "found", "found-page"}, {4.5, "warn", "warn-page"},
		{4.5, "mark", "mark-page"},
		{4.5, "frame-text", "frame-root frame-target frame-kernel frame-module frame-allocator"},
		{3, "edge focus line", "page"}, {3, "line", "area"}, {3, "focus edge", "panel"},
	}
	for name, scheme := range map[string]string{"light": light, "dark": dark} {
		colours := make(map[string]float64)
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(scheme, -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		used := make(map[string]bool)
		for _, p := range pairs {
			for text := range strings.FieldsSeq(p.texts) {
				for page := range strings.FieldsSeq(p.all) {
					a, okA := colours[text]
					b, okB := colours[page]
					ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05)
					if !okA || !okB || ratio < p.ratio {
						t.Errorf("%s: %s on %s: %.2f, not %v", name, text, page, ratio, p.ratio)
					}
					used[text], used[page] = true, true
				}
			}
		}
		for c := range colours {
			if !used[c] {
				t.Errorf("%s: nothing is known of the use of %s", name, c)
			}
		}
	}
}

// luminance is the relative one of WCAG 2.
func luminance(t *testing.T, hex string) float64 {
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for i, weight := range []float64{0.0722, 0.7152, 0.2126} {
		c := float64(n>>(8*i)&0xff) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += c * weight
	}
	return sum
}

// TestHTMLStates: what comes first is the verdict, in words.
func TestHTMLStates(t *testing.T) {
	for name, want := range map[string]string{"hello": "Found", "clean": "Clean", "odd": "Incomplete", "never": "Not loaded yet"} {
		if page := html(t, Options{}, sample.Report(t, name)); !strings.Contains(page, `<strong class="word">`+want+`</strong>`) {
			t.Errorf("%s: not %q", name, want)
		}
	}
	r := sample.Report(t, "hello")
	r.UnallocatedFreesTotal = 7
	r.UnallocatedFrees = []leak.Wrong{{Wrong: session.Unallocated, Count: 2}}
	if page := html(t, Options{}, r); !strings.Contains(page, "5 unallocated frees besides, of which no more is known") {
		t.Error("nothing is said of wrong releases that are not listed")
	}
}

// TestInnermost: what the table leads to is the module's own source, not a header of the
// kernel's.
func TestInnermost(t *testing.T) {
	r := sample.Report(t, "hello")
	header := leak.Frame{Function: "kmalloc", Module: "hello_kernel", File: "/usr/src/linux-headers-6.1.0-56-common/include/linux/slab.h", Line: 568, Inlined: true}
	r.PossibleLeaks = r.PossibleLeaks[:1]
	r.PossibleLeaks[0].Stack = append([]leak.Frame{header}, r.PossibleLeaks[0].Stack...)
	if page := html(t, Options{Sources: sample.Examples(t)}, r); !strings.Contains(page, "<td><code>myfunc4</code></td><td>/src/hello-kernel/hello.c:45</td>") {
		t.Error("the table of the page does not lead to myfunc4")
	}
}
