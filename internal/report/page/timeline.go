package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"kedr/internal/leak"
)

// timeline is when what is outstanding at the end was obtained.
type timeline struct {
	Path       string   // of an SVG, over a field of timelineWidth by timelineHeight
	Times      []string // at the quarters of the way, in seconds since boot
	Most, Half string   // bytes
	Total      uint64   // bytes
	Objects    uint64
	Unknown    uint64 // objects of unknown size, which are not in it
	Marks      []timeMark
}

// timeMark is when the module came or went; X in percent of the width.
type timeMark struct {
	X    string
	What string
	Left bool // its name has more room there
}

// More marks than these would hide what they are to explain.
const maxMarks = 6

const (
	timelineWidth  = 1000
	timelineHeight = 200
	maxPoints      = 500
)

type point struct {
	time  float64
	bytes uint64 // up to then
}

// newTimeline sums up the outstanding bytes; nil: there are none.
func newTimeline(r *leak.Report) *timeline {
	t := new(timeline)
	var points []point
	for _, l := range r.PossibleLeaks {
		for _, o := range l.Objects {
			if o.Size == 0 {
				t.Unknown++
				continue
			}
			points = append(points, point{o.Time, o.Size})
		}
	}
	if len(points) == 0 {
		return nil
	}
	t.Objects = uint64(len(points))
	slices.SortFunc(points, func(a, b point) int { return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.bytes, b.bytes)) })
	for i := range points {
		t.Total += points[i].bytes
		points[i].bytes = t.Total
	}
	start, end := points[0].time, points[len(points)-1].time
	points = thin(points)
	for _, l := range r.Loads {
		if l.LoadedAt > 0 {
			start, end = min(start, l.LoadedAt), max(end, l.LoadedAt, l.UnloadedAt)
		}
	}
	span := end - start
	t.Most, t.Half = scaled(t.Total), scaled(t.Total/2)

	if span <= 0 {
		span = 1e-6 // one moment: a step at the beginning
	}
	digits := 0
	for step := span / 4; step < 10 && digits < 6; step *= 10 {
		digits++
	}
	for i := range 5 {
		t.Times = append(t.Times, fmt.Sprintf("%.*f", digits, start+span*float64(i)/4))
	}
	mark := func(at float64, what string, load uint32) {
		if at == 0 || len(r.Loads) > maxMarks/2 {
			return
		}
		if len(r.Loads) > 1 {
			what = fmt.Sprintf("load %d %s", load, what)
		}
		x := (at - start) / span
		t.Marks = append(t.Marks, timeMark{percent(x), what, x > 0.5})
	}
	for _, l := range r.Loads {
		mark(l.LoadedAt, "loaded", l.ID)
		mark(l.UnloadedAt, "unloaded", l.ID)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "M0 %d", timelineHeight)
	for _, p := range points {
		fmt.Fprintf(&b, "H%.4gV%.4g", (p.time-start)/span*timelineWidth, timelineHeight*(1-float64(p.bytes)/float64(t.Total)))
	}
	fmt.Fprintf(&b, "H%d", timelineWidth)
	t.Path = b.String()
	return t
}

// thin keeps the first point, and the last of each of a number of spans of equal length.
func thin(points []point) []point {
	if len(points) <= maxPoints {
		return points
	}
	start := points[0].time
	span := points[len(points)-1].time - start
	const spans = maxPoints - 1
	at := func(p point) int {
		if span <= 0 {
			return 0
		}
		return min(int((p.time-start)/span*spans), spans-1)
	}
	kept := []point{points[0]}
	for i, p := range points {
		if i == len(points)-1 || at(points[i+1]) != at(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// scaled is a number of bytes as people read it.
func scaled(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, "KiB"
	for _, u := range []string{"MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	return fmt.Sprintf("%.3g %s", f, unit)
}
