package main

// The page: for each fault the timelines of the three clients over each other, and the table. It
// is one file, with nothing to load. The drawings can be had as files of their own, too.

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed page.html chart.svg
var templates embed.FS

// The drawing's measures, in pixels.
const (
	plotWidth  = 980
	laneHeight = 62
	laneGap    = 34
	errorRoom  = 12 // below a lane's baseline
	axisRoom   = 26
	topRoom    = 22
	mostBins   = 320
)

type pageData struct {
	Source  string
	Runs    int
	Faults  []faultData
	Clients []string
}

type faultData struct {
	Name, Title, About, Lag string
	Rows                    []rowData
	Chart                   chart
}

type rowData struct {
	summary

	Number                     int
	Median, Worst, Calm, Wrong string
	Best                       bool
	Bar                        int // percent of the slowest
}

// chart is one run, drawn.
type chart struct {
	Width, Height int
	Lanes         []lane
	Marks         []mark
	Ticks         []tick
	Bottom        int
}

type lane struct {
	Number         int
	Name           string
	Top, Base      int
	Area, Line     string // SVG paths
	GapX, GapWidth float64
	GapText        string
	GapTextX       float64
	GapBeside      bool
	Errors         []errorBar
	ErrorCount     int
}

type errorBar struct{ X, W, H float64 }

type mark struct {
	X     float64 // of the label
	Line  float64
	Label string
	Class string
	Left  bool // write the label on this side
	Y     int
}

type tick struct {
	X     float64
	Label string
}

func writePage(name string, results []*result, source string) error {
	data := pageData{Source: source, Clients: clientNames}
	for _, r := range results {
		data.Runs = len(r.runs)
		data.Faults = append(data.Faults, describe(r))
	}
	return execute(name, "page.html", data)
}

// drawing is one fault's chart as a file of its own, for documents that have room for one.
type drawing struct {
	faultData

	Wide, High int
}

func writeDrawings(folder string, results []*result) error {
	const margin, titleRoom = 16, 40
	for _, r := range results {
		d := drawing{faultData: describe(r)}
		d.Wide, d.High = d.Chart.Width+2*margin, d.Chart.Height+titleRoom
		if err := execute(filepath.Join(folder, r.fault.name+".svg"), "drawing", d); err != nil {
			return err
		}
	}
	return nil
}

// execute fills in a template of the page's files.
func execute(file, name string, data any) (err error) {
	t, err := template.ParseFS(templates, "page.html", "chart.svg")
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return t.ExecuteTemplate(f, name, data)
}

func describe(r *result) faultData {
	d := faultData{Name: r.fault.name, Title: r.fault.title, About: r.fault.about, Chart: draw(r.typical(), r.lag)}
	if r.lag > 0 {
		d.Lag = "DNS " + r.lag.String() + " behind"
	}
	rows := r.summarize()
	slowest, best := time.Millisecond, rows[0].median.length
	for _, s := range rows {
		slowest, best = max(slowest, s.median.length), min(best, s.median.length)
	}
	for i, s := range rows {
		d.Rows = append(d.Rows, rowData{
			summary: s, Number: i, Median: s.median.String(), Worst: s.worst.String(), Calm: shown(s.calm),
			Wrong: wrong(s), Best: s.median.length == best, Bar: max(1, int(100*s.median.length/slowest)),
		})
	}
	return d
}

func wrong(s summary) string {
	var parts []string
	if s.doubled > 0 {
		parts = append(parts, fmt.Sprintf("%d twice", s.doubled))
	}
	if s.missed > 0 {
		parts = append(parts, fmt.Sprintf("%d lost", s.missed))
	}
	return cmp.Or(strings.Join(parts, ", "), "0")
}

// Failed and ErrorCount are for the template.
func (s summary) Failed() int { return s.failed }

// Client is for the template.
func (s summary) Client() string { return s.client }

// Attempts is for the template.
func (s summary) Attempts() int { return s.errors }

// typical is the run that is the median for our client.
func (r *result) typical() *oneRun {
	runs := slices.Clone(r.runs)
	slices.SortFunc(runs, func(a, b *oneRun) int {
		last := len(clientNames) - 1
		return compareWaits(a.firstCommit(a.tracks[last]), b.firstCommit(b.tracks[last]))
	})
	return runs[len(runs)/2]
}

// scale is from a time to a place.
type scale struct{ from, to time.Duration }

func (s scale) x(t time.Duration) float64 {
	return plotWidth * float64(t-s.from) / float64(s.to-s.from)
}

func draw(run *oneRun, lag time.Duration) chart {
	s := scale{from: -workFor, to: run.ended}
	bin := max(50*time.Millisecond, (s.to-s.from)/mostBins)
	c := chart{Width: plotWidth, Height: topRoom + len(run.tracks)*(laneHeight+laneGap) + axisRoom}
	most := 1
	counts := make([][]int, len(run.tracks))
	for i, t := range run.tracks {
		counts[i] = histogram(t.commits, s, bin)
		most = max(most, slices.Max(counts[i]))
	}
	for i, t := range run.tracks {
		c.Lanes = append(c.Lanes, drawLane(i, t, run, s, bin, counts[i], most))
	}
	c.Bottom = topRoom + len(run.tracks)*(laneHeight+laneGap) - 8
	const narrow = 40 // too little room for a label
	c.Marks = append(c.Marks, mark{X: max(s.x(0), narrow), Line: s.x(0), Label: "fault", Class: "fault", Left: true, Y: 12})
	if run.accepts > 50*time.Millisecond {
		c.Marks = append(c.Marks, mark{X: s.x(run.accepts), Line: s.x(run.accepts), Label: "writes accepted", Class: "accepts", Y: 12})
	}
	if lag > 0 && run.dns < run.ended {
		c.Marks = append(c.Marks, mark{X: s.x(run.dns), Line: s.x(run.dns), Label: "DNS follows", Class: "dns", Left: s.x(run.dns) > plotWidth/2, Y: 12})
	}
	step := tickStep(s.to - s.from)
	for t := s.from.Truncate(step); t <= s.to; t += step {
		if t >= s.from {
			c.Ticks = append(c.Ticks, tick{s.x(t), fmt.Sprintf("%g s", t.Seconds())})
		}
	}
	return c
}

func tickStep(span time.Duration) time.Duration {
	const most = 12
	for _, step := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second} {
		if span/step <= most {
			return step
		}
	}
	return 20 * time.Second
}

func histogram(times []time.Duration, s scale, bin time.Duration) []int {
	counts := make([]int, int((s.to-s.from)/bin)+1)
	for _, t := range times {
		if t >= s.from && t <= s.to {
			counts[int((t-s.from)/bin)]++
		}
	}
	return counts
}

func drawLane(number int, t *track, run *oneRun, s scale, bin time.Duration, counts []int, most int) lane {
	top := topRoom + number*(laneHeight+laneGap) + 14
	l := lane{Number: number, Name: t.client, Top: top, Base: top + laneHeight, ErrorCount: len(t.errors)}
	var line strings.Builder
	for i, n := range counts {
		from := s.x(s.from + time.Duration(i)*bin)
		to := min(plotWidth, s.x(s.from+time.Duration(i+1)*bin))
		y := float64(l.Base) - float64(laneHeight)*float64(n)/float64(most)
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(&line, "%s%.1f %.1f L%.1f %.1f", command, from, y, to, y)
	}
	l.Line = line.String()
	l.Area = l.Line + fmt.Sprintf("L%d %dL0 %dZ", plotWidth, l.Base, l.Base)
	l.Errors = errorBars(histogram(t.errors, s, bin), s, bin)
	if from, to, ok := t.longestGap(run.ended); ok {
		l.GapX, l.GapWidth = s.x(from), s.x(to)-s.x(from)
		l.GapText = "no commit for " + shown(to-from)
		const label = 150
		if l.GapTextX = l.GapX + l.GapWidth/2; l.GapWidth < label { // beside it
			l.GapBeside, l.GapTextX = true, l.GapX+l.GapWidth+6
		}
	}
	return l
}

func errorBars(counts []int, s scale, bin time.Duration) []errorBar {
	const full = 8 // so many failed attempts in a bin make a full bar
	var bars []errorBar
	for i, n := range counts {
		if n == 0 {
			continue
		}
		x := s.x(s.from + time.Duration(i)*bin)
		bars = append(bars, errorBar{X: x, W: max(1.5, s.x(s.from+bin)-0.5), H: max(3, float64(errorRoom)*min(1, float64(n)/full))})
	}
	return bars
}

// longestGap is the longest time without a commit that ended after the fault.
func (t *track) longestGap(end time.Duration) (from, to time.Duration, ok bool) {
	const least = 100 * time.Millisecond
	last := time.Duration(0)
	for i, at := range append(slices.Clone(t.commits), end) {
		if i > 0 && at > 0 && at-last > to-from {
			from, to = last, at
		}
		last = at
	}
	return from, to, to-from > least
}
