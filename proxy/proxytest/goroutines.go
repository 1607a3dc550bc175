package proxytest

// The way to a statement's caller that needs nothing installed: whoever sent the statement waits for
// the answer, and if the client is in this process, its goroutine can be seen waiting.

import (
	"bytes"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxSearches  = 200              // by one proxy: each stops the program for a moment
	firstLook    = time.Millisecond // the pause behind the first look, doubled each time
	looks        = 5
	maxStackDump = 8 << 20
)

type goroutineSearch struct{ searches atomic.Int64 }

// search completes c with the caller found, or with why there is none. While several goroutines wait
// in a query it looks again: the others go on, the one it looks for cannot.
func (g *goroutineSearch) search(c Caller) Caller {
	if g.searches.Add(1) > maxSearches {
		c.Doubt = "not looked for any more; use Proxy.Trace or Proxy.DialContext"
		return c
	}
	var waiting map[string]Caller
	for look, pause := 0, firstLook; look < looks; look, pause = look+1, 2*pause {
		if look > 0 {
			time.Sleep(pause)
		}
		seen := goroutinesInQuery(allStacks())
		if waiting == nil {
			waiting = seen
		}
		for id := range waiting {
			if seen[id] != waiting[id] {
				delete(waiting, id)
			}
		}
		if len(waiting) <= 1 && (look > 0 || len(waiting) == 1) {
			break
		}
	}
	return g.conclude(c, waiting)
}

func (g *goroutineSearch) conclude(c Caller, waiting map[string]Caller) Caller {
	places := map[string]Caller{}
	for _, found := range waiting {
		places[found.File+":"+strconv.Itoa(found.Line)] = found
	}
	switch len(places) {
	case 0:
		return c
	case 1:
		for _, found := range places {
			c.File, c.Line, c.Function, c.From = found.File, found.Line, found.Function, found.From
		}
		c.Doubt = "the one place in this process that waited for an answer then; Proxy.Trace or Proxy.DialContext makes sure"
	default:
		list := slices.Sorted(maps.Keys(places))
		c.Doubt = "one of " + strings.Join(list, ", ") + "; Proxy.Trace or Proxy.DialContext tells which"
	}
	return c
}

func allStacks() []byte {
	buf := make([]byte, 64<<10)
	for {
		if n := runtime.Stack(buf, true); n < len(buf) || len(buf) >= maxStackDump {
			return buf[:n]
		}
		buf = make([]byte, 4*len(buf))
	}
}

// goroutinesInQuery reads a dump of all goroutines for those inside a driver's query, by goroutine
// number, with where they are.
func goroutinesInQuery(dump []byte) map[string]Caller {
	found := map[string]Caller{}
	for block := range bytes.SplitSeq(dump, []byte("\n\n")) {
		head, rest, ok := strings.Cut(string(block), "\n")
		if !ok || !inQuery(rest) {
			continue
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(head, "goroutine "), " ")
		if c := (Caller{}).at(pickFrames(parseFrames(rest))); c.Function != "" {
			found[id] = c
		}
	}
	return found
}

// inQuery says whether a stack is within a driver's call, and not within the proxy's own.
func inQuery(stack string) bool {
	return (strings.Contains(stack, "github.com/jackc/pgx/v5/pgconn.(*") || strings.Contains(stack, "github.com/lib/pq.(*conn)")) &&
		!strings.Contains(stack, "/proxytest.(*connPool).connect(")
}

// parseFrames reads the lines of one goroutine: function(arguments), then file:line, indented.
func parseFrames(stack string) []runtime.Frame {
	var frames []runtime.Frame
	lines := strings.Split(stack, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		function := lines[i]
		if strings.HasPrefix(function, "created by ") {
			break
		}
		if n := strings.LastIndexByte(function, '('); n > 0 {
			function = function[:n]
		}
		place, _, _ := strings.Cut(strings.TrimSpace(lines[i+1]), " +0x")
		n := strings.LastIndexByte(place, ':')
		if n < 0 {
			continue
		}
		line, err := strconv.Atoi(place[n+1:])
		if err != nil {
			continue
		}
		frames = append(frames, runtime.Frame{Function: function, File: place[:n], Line: line})
	}
	return frames
}
