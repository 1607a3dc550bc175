package auroracdk_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// The CDK runs in a node process that all tests share, and its Go side is not safe for
// concurrent use: no test here is parallel.
func TestMain(m *testing.M) {
	if _, err := exec.LookPath("node"); err != nil {
		fmt.Fprintln(os.Stderr, "The tests of auroracdk need node, version 20 or newer, on PATH: the AWS CDK runs in it.\nInstall it (https://nodejs.org, apt-get install nodejs), or run the tests of the other modules: make test leaves this one out, and says so, where there is no node.")
		os.Exit(1)
	}
	// A banner of 11 lines about the age of node.
	if err := os.Setenv("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20"); err != nil {
		panic(err)
	}
	// Node is ended by the end of this process. jsii.Close would end it earlier, and race
	// with jsii's own goroutine on the way: both wait for the same command.
	dir, err := os.MkdirTemp("", "auroracdk-test")
	if err != nil {
		panic(err)
	}
	if err := os.Setenv("TMPDIR", dir); err != nil { // where jsii unpacks itself
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
