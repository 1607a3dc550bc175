package proxytest

// Where a statement came from. A Go program in the same process is asked through a pgx tracer
// (tracer.go) or by looking at its goroutines (goroutines.go); anybody else can say so in a comment of
// the statement (comment.go) or by application_name.

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
)

// A Caller is where a statement came from, as far as that is known.
type Caller struct {
	File        string // of the caller's code
	Line        int    // in File
	Function    string // of a Go caller, with its package
	From        string // file:line of whoever called Function, if that is the program's own code too
	Tags        string // what comments in the statement say, as key=value
	Application string // application_name, if the client set one
	Doubt       string // why File and Line may be wrong, or are missing; empty if they are exact
}

// String is one line for people.
func (c Caller) String() string {
	var parts []string
	if c.File != "" {
		parts = append(parts, c.File+":"+strconv.Itoa(c.Line))
	}
	if c.Function != "" {
		parts = append(parts, "in "+c.Function)
	}
	if c.From != "" {
		parts = append(parts, "from "+c.From)
	}
	if c.Tags != "" {
		parts = append(parts, "/* "+c.Tags+" */")
	}
	if c.Application != "" {
		parts = append(parts, "application_name "+strconv.Quote(c.Application))
	}
	if c.Doubt != "" {
		parts = append(parts, "("+c.Doubt+")")
	}
	return strings.Join(parts, " ")
}

// caller finds out where a statement of the session came from. It runs on the session's goroutine,
// before the statement is passed on, so whoever sent it still waits.
func (s *clientSession) caller(v verdict) Caller {
	c := Caller{Tags: strings.Join(v.tags, " "), Application: s.info.params["application_name"]}
	c.File, c.Line = fileAndLine(v.tags)
	if c.File != "" {
		return c
	}
	if pcs := s.p.calls.find(s.remote, v.text); len(pcs) > 0 {
		return c.at(callerOf(pcs))
	}
	return s.p.goroutines.search(c)
}

// at completes a Caller with the frames of pickFrames.
func (c Caller) at(frames []runtime.Frame) Caller {
	if len(frames) == 0 {
		return c
	}
	c.Function, c.File, c.Line = frames[0].Function, frames[0].File, frames[0].Line
	if len(frames) > 1 {
		c.From = frames[1].File + ":" + strconv.Itoa(frames[1].Line)
	}
	return c
}

func callerOf(pcs []uintptr) []runtime.Frame {
	frames := runtime.CallersFrames(pcs)
	var list []runtime.Frame
	for {
		f, more := frames.Next()
		if f.Function != "" {
			list = append(list, f)
		}
		if !more {
			return pickFrames(list)
		}
	}
}

// pickFrames picks from a stack, given from the inside out, the frame that a reader would look for, and
// who called that: the innermost outside libraries and generated code, or failing that the innermost
// outside pgx and database/sql.
func pickFrames(stack []runtime.Frame) []runtime.Frame {
	var own, generated, library []runtime.Frame
	for _, f := range stack {
		switch {
		case isPlumbing(f.Function, f.File):
		case isLibrary(f.File):
			library = append(library, f)
		case isGenerated(f.File):
			generated = append(generated, f)
		default:
			own = append(own, f)
		}
	}
	for _, list := range [][]runtime.Frame{own, generated, library} {
		if len(list) > 0 {
			return list[:min(len(list), 2)]
		}
	}
	return nil
}

// plumbing is what every statement passes through.
var plumbing = []string{
	"github.com/jackc/pgx/", "github.com/jackc/puddle/", "github.com/lib/pq.", "database/sql.", "database/sql/",
	"github.com/aurorapgx/aurorapgx/proxy.", "github.com/aurorapgx/aurorapgx/proxy/proxytest.",
	"github.com/aurorapgx/aurorapgx/retry.", "runtime.", "internal/", "testing.", "sync.", "net.", "crypto/tls.",
}

func isPlumbing(function, file string) bool {
	if strings.HasSuffix(file, "_test.go") && !strings.Contains(file, "@v") {
		return false
	}
	for _, prefix := range plumbing {
		if strings.HasPrefix(function, prefix) || strings.Contains(function, "/vendor/"+prefix) {
			return true
		}
	}
	return false
}

// isLibrary knows code from the module cache, from a vendor directory and from Go itself.
func isLibrary(file string) bool {
	if strings.Contains(file, "@v") || strings.Contains(file, "/vendor/") {
		return true
	}
	return goSource != "" && strings.HasPrefix(file, goSource)
}

// goSource is where Go's own source was when the program was built, or "" with -trimpath.
var goSource = func() string {
	f := runtime.FuncForPC(reflect.ValueOf(runtime.GC).Pointer())
	file, _ := f.FileLine(f.Entry())
	dir := filepath.Dir(filepath.Dir(file)) // …/src/runtime
	if !filepath.IsAbs(dir) {
		return ""
	}
	return dir + string(filepath.Separator)
}()

// isGenerated looks for the line that https://go.dev/s/generatedcode describes.
func isGenerated(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	head := make([]byte, 2048)
	n, _ := f.Read(head)
	_ = f.Close()
	for line := range strings.Lines(string(head[:n])) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "// Code generated ") && strings.HasSuffix(line, " DO NOT EDIT.") {
			return true
		}
		if strings.HasPrefix(line, "package ") {
			return false
		}
	}
	return false
}
