package main

import (
	"context"
	"runtime"
	"runtime/debug"
)

const versionHelp = `
Prints the module version this program was built from, the commit if it was built in a
checkout, and the Go version.
`

func runVersion(_ context.Context, p *program, args []string) error {
	f := p.flags("version", "[--json]", versionHelp)
	asJSON := f.json()
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	version, revision := "(devel)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	if *asJSON {
		return p.printJSON(map[string]string{"version": version, "revision": revision, "go": runtime.Version()})
	}
	line := "aurorapgx " + version
	if revision != "" {
		line += " (" + revision[:min(12, len(revision))] + ")"
	}
	return printLines(p.stdout, line+" "+runtime.Version())
}
