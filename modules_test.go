package aurorapgx_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a service gets when it imports the library: its module graph holds pgx, the AWS
// SDK, backoff and golang.org/x, and what pgx and the SDK bring along. Containers,
// tracing and CDK stay in modules of their own.
func TestModuleGraphOfAConsumer(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	_, requirements, _ := strings.Cut(string(own), "require (")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/service\n\ngo 1.26\n\nrequire github.com/aurorapgx/aurorapgx v0.0.0\n\nreplace github.com/aurorapgx/aurorapgx => " + root + "\n\nrequire (" + requirements,
		"go.sum": string(sums),
		"main.go": `package main

import (
	_ "github.com/aurorapgx/aurorapgx/aurora"
	_ "github.com/aurorapgx/aurorapgx/proxy"
	_ "github.com/aurorapgx/aurorapgx/retry"
	_ "github.com/aurorapgx/aurorapgx/secrets"
)

func main() {}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) []string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.Fields(string(out))
	}

	// The module graph, and of it what is compiled in.
	heavy := regexp.MustCompile(`testcontainers|opentelemetry|aws-cdk|cdk-nag|cdklabs|constructs-go|jsii|aws-cloudformation|jsonschema|docker|moby|goleak|aws-lambda-go|service/rds$|gorm`)
	for _, module := range run("list", "-m", "-f", "{{.Path}}", "all") {
		if heavy.MatchString(module) {
			t.Errorf("%s is in a consumer's module graph", module)
		}
	}
	ours := regexp.MustCompile(`^(github\.com/(aurorapgx/aurorapgx|jackc/[a-z0-9]+(/v\d+)?|aws/aws-sdk-go-v2|aws/smithy-go|cenkalti/backoff/v4)|golang\.org/x/[a-z]+)(/|$)`)
	for _, pkg := range run("list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".") {
		if pkg != "example.com/service" && !ours.MatchString(pkg) {
			t.Errorf("%s is compiled into a consumer", pkg)
		}
		if strings.Contains(pkg, "/proxytest") {
			t.Errorf("%s is for tests", pkg)
		}
	}

	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	for _, m := range direct.FindAllStringSubmatch(string(own), -1) {
		if !ours.MatchString(m[1] + "/") {
			t.Errorf("go.mod requires %s directly", m[1])
		}
	}
}

// The otel module adds OpenTelemetry's own modules to that, and nothing else of weight.
func TestModuleGraphOfOtel(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Path}}", "all")
	cmd.Dir = "otel"
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	heavy := regexp.MustCompile(`testcontainers|docker|moby|aws-cdk|aws-lambda-go|otelpgx|exporters|grpc|aurorapgx/internal`)
	for module := range strings.FieldsSeq(string(out)) {
		if heavy.MatchString(module) {
			t.Errorf("%s is in the module graph", module)
		}
	}
}
