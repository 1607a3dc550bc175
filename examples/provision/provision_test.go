package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/aurora"
	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

// The whole of it, as a newcomer sees it.
func TestProvision(t *testing.T) {
	t.Setenv("AWS_PROFILE", "no-such-profile") // what a shell may have, and must not get in the way
	t.Setenv("PGPASSWORD", "my own")
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	_, source, _ := strings.Cut(out.String(), "not on AWS: ")
	source, _, _ = strings.Cut(source, ", RDS Proxy emulated")
	page.Check(t, "go run ./provision", strings.Replace(out.String(), source, "PostgreSQL", 1))
	for _, want := range []string{
		"resources; deploy.sh has the command", "expected", "through the proxy",
		"postgres://app@orders.proxy-0123456789ab.eu-west-1.rds.amazonaws.com:",
		"postgres://migrate@orders.cluster-0123456789ab.eu-west-1.rds.amazonaws.com:", "pinned       0 sessions",
		"wrote item 1; statement_timeout is 5s; may not drop the table", "read 1 item; may not write",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
}

func TestResolveOutputs(t *testing.T) {
	t.Parallel()
	got, err := resolveOutputs([]byte(`{"Outputs": {
		"A": {"Value": {"Ref": "R"}}, "B": {"Value": {"Fn::Sub": "x${R}y${P.E}"}}, "C": {"Value": "plain"},
		"D": {"Value": {"Fn::Select": ["1", {"Fn::Split": [":", {"Fn::GetAtt": ["P", "E"]}]}]}}}}`),
		map[string]string{"R": "r", "P.E": "a:b:c"})
	if err != nil || got["A"] != "r" || got["B"] != "xrya:b:c" || got["C"] != "plain" || got["D"] != "b" {
		t.Errorf("%v, %v", got, err)
	}
	for _, value := range []string{`{"Ref": "X"}`, `{"Fn::GetAtt": ["X", "Y"]}`, `{"Fn::Sub": "${X}"}`, `{"Fn::Select": ["9", {"Fn::Split": [":", "a"]}]}`, `{"Fn::If": []}`} {
		if got, err := resolveOutputs([]byte(`{"Outputs": {"A": {"Value": `+value+`}}}`), nil); err == nil {
			t.Errorf("%s became %v", value, got)
		}
	}
}

// Stands for the AWS CLI: answers as that does, from files, and writes down what it was asked.
const fakeAWS = `#!/bin/sh
echo "$1 $2" >>"$FAKE/calls"
case "$1 $2" in
"cloudformation get-template")
	[ -f "$FAKE/deployed.json" ] || { echo "Stack with id orders does not exist" >&2; exit 254; }
	cat "$FAKE/deployed.json" ;;
"cloudformation deploy") printf '%s\n' "$@" >"$FAKE/deploy"; cp "$6" "$FAKE/template.json" ;;
"cloudformation describe-stacks") cat "$FAKE/outputs.json" ;;
"rds describe-db-clusters") echo dbadmin ;;
"rds describe-db-proxy-targets") cat "$FAKE/targets" ;;
"rds generate-db-auth-token") echo "token for $*" ;;
"secretsmanager get-secret-value") cat "$FAKE/secret" ;;
*) echo "unexpected: $*" >&2; exit 255 ;;
esac
`

// Stands for psql: keeps what it was given, and answers as the user it was given.
const fakePsql = `#!/bin/sh
printf '%s\n' "$PGHOST" "$PGUSER" "$PGDATABASE" "$PGSSLMODE" >"$FAKE/psql.env"
printf '%s' "$PGPASSWORD" >"$FAKE/psql.password"
printf '%s\n' "$@" >"$FAKE/psql.args"
case "$*" in *ON_ERROR_STOP*) cat >"$FAKE/psql.sql" ;; *) cat "$FAKE/who" ;; esac
`

// script is a folder of the fakes, with the real aurorapgx.
type script struct {
	t   *testing.T
	dir string
}

func newScript(t *testing.T) script {
	t.Helper()
	s := script{t, t.TempDir()}
	s.write("aws", fakeAWS)
	s.write("psql", fakePsql)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(s.dir, "aurorapgx"), "github.com/aurorapgx/aurorapgx/cmd/aurorapgx")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	spec, err := aurora.ParseSpec(ordersJSON)
	if err != nil {
		t.Fatal(err)
	}
	template, err := spec.Template()
	if err != nil {
		t.Fatal(err)
	}
	outputs, err := resolveOutputs(template, attributes)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for key, value := range outputs {
		list = append(list, `{"OutputKey": "`+key+`", "OutputValue": "`+value+`"}`)
	}
	s.write("outputs.json", `{"Stacks": [{"Outputs": [`+strings.Join(list, ",")+`]}]}`)
	s.write("secret", `{"username":"dbadmin","password":"a\"b\\c'd$e }, {"}`)
	s.write("targets", "AVAILABLE\tAVAILABLE\n")
	s.write("who", "app\n")
	return s
}

func (s script) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// read returns what a fake wrote down, "" if it was not asked.
func (s script) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(s.dir, name))
	return string(text)
}

func (s script) run(name string, env ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), "sh", append([]string{name}, "app")...)
	cmd.Env = append([]string{"PATH=" + s.dir + ":" + os.Getenv("PATH"), "FAKE=" + s.dir, "AURORAPGX=aurorapgx", "HOME=" + s.dir}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var network = []string{"VPC_ID=vpc-1", "SUBNET_IDS=subnet-1,subnet-2", "CLIENT_SECURITY_GROUP_IDS=sg-1", "DIRECT_SECURITY_GROUP_IDS=sg-2,sg-3", "PGSSLMODE=require"}

// The scripts cannot be run against AWS here; what they ask of it can be looked at.
func TestDeployScript(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	out, err := s.run("deploy.sh", network...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	spec, _ := aurora.ParseSpec(ordersJSON)
	template, _ := spec.Template()
	sql, _ := aurora.BootstrapSQL(spec)
	if s.read("template.json") != string(template) || s.read("psql.sql") != sql {
		t.Error("another template or other SQL than the spec's")
	}
	if got := s.read("deploy"); !strings.Contains(got, "--capabilities\nCAPABILITY_IAM\n") || !strings.HasSuffix(got, "VpcId=vpc-1\nSubnetIds=subnet-1,subnet-2\nClientSecurityGroupIds=sg-1\nDirectSecurityGroupIds=sg-2,sg-3\n") {
		t.Errorf("deployed with %q", got)
	}
	if got := s.read("psql.env"); got != "orders.cluster-0123456789ab.eu-west-1.rds.amazonaws.com\ndbadmin\norders\nrequire\n" {
		t.Errorf("psql to %q", got)
	}
	if got := s.read("psql.password"); got != `a"b\c'd$e }, {` {
		t.Errorf("the administrator's password became %q", got)
	}
	if strings.Contains(out+s.read("psql.args")+s.read("deploy"), `b\c`) || !strings.Contains(out, "DATABASE_URL='postgres://app@orders.proxy-") {
		t.Errorf("no environment, or the password in it:\n%s", out)
	}

	// Users that cannot all be written down are not created in part.
	s.write("psql.sql", "")
	s.write("halfway", "#!/bin/sh\n[ \"$1\" != sql ] || { echo 'create role half;'; exit 1; }\nexec aurorapgx \"$@\"\n")
	if out, err := s.run("deploy.sh", append(network, "AURORAPGX=halfway")...); err == nil || s.read("psql.sql") != "" || strings.Contains(out, "deployed;") {
		t.Errorf("%v, psql got %q\n%s", err, s.read("psql.sql"), out)
	}
	s.write("forgetful", "#!/bin/sh\n[ \"$1\" != env ] || exit 1\nexec aurorapgx \"$@\"\n")
	for _, name := range []string{"deploy.sh", "smoke.sh"} { // in a shell that has the variables from before
		before := append(network, "AURORAPGX=forgetful", "AURORA_HOST=old", "AURORA_PORT=1", "AURORA_REGION=r", "AURORA_DATABASE=d", "AURORA_USER=app",
			"AURORA_CLUSTER_HOST=old", "AURORA_CLUSTER_ARN=old", "AURORA_MASTER_SECRET_ARN=old")
		if out, err := s.run(name, before...); err == nil || s.read("psql.sql") != "" {
			t.Errorf("%s went on without its environment:\n%s", name, out)
		}
	}

	// The same again is deployed, a change that replaces the cluster is not, unless it is meant.
	s.write("deployed.json", `{"TemplateBody": `+string(template)+`}`)
	if out, err := s.run("deploy.sh", network...); err != nil || !strings.Contains(out, "no difference") {
		t.Errorf("%v\n%s", err, out)
	}
	s.write("deployed.json", strings.Replace(string(template), `"DatabaseName": "orders"`, `"DatabaseName": "sales"`, 1))
	s.write("calls", "")
	if out, err := s.run("deploy.sh", network...); err == nil || !strings.Contains(out, "replace  Cluster DatabaseName") || strings.Contains(s.read("calls"), "deploy\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := s.run("deploy.sh", append(network, "REPLACE=yes")...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}

	if out, err := s.run("deploy.sh"); err == nil || !strings.Contains(out, "the VPC, vpc-...") {
		t.Errorf("without a network: %v\n%s", err, out)
	}
	s.write("deployed.json", string(template))
	if out, err := s.run("deploy.sh", network[:3]...); err == nil || !strings.Contains(out, "the security groups that may connect to the cluster itself") {
		t.Errorf("without a way to the cluster: %v\n%s", err, out)
	}
	if out, err := s.run("deploy.sh", network[:4]...); err == nil || !strings.Contains(out, "get global-bundle.pem from https://truststore.pki.rds.amazonaws.com/") {
		t.Errorf("without the certificates: %v\n%s", err, out)
	}
}

func TestSmokeScript(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	if out, err := s.run("smoke.sh"); err != nil || out != "ok: app at orders.proxy-0123456789ab.eu-west-1.rds.amazonaws.com\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if got := s.read("psql.args"); !strings.Contains(got, "host=orders.proxy-0123456789ab.eu-west-1.rds.amazonaws.com port=5432 dbname=orders user=app sslmode=verify-full sslrootcert=system") {
		t.Errorf("psql %s", got)
	}
	if got := s.read("psql.password"); !strings.HasPrefix(got, "token for rds generate-db-auth-token --hostname orders.proxy-") || !strings.Contains(got, "--username app") {
		t.Errorf("with %s", got)
	}
	s.write("who", "dbadmin\n")
	if out, err := s.run("smoke.sh"); err == nil || !strings.Contains(out, "logged in as app and is dbadmin") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, states := range []string{"AVAILABLE\tUNAVAILABLE\n", ""} {
		s.write("targets", states)
		if out, err := s.run("smoke.sh"); err == nil || !strings.Contains(out, "the proxy's targets are") {
			t.Errorf("%q: %v\n%s", states, err, out)
		}
	}
}
