package aurora

// What a deployed stack tells the application: the same facts as stack outputs, as
// environment variables, and as one JSON parameter in SSM.

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Handoff is what an application needs to know of a deployed stack. It holds no
// password and no token.
type Handoff struct {
	Region          string        `json:"region"`               // of the stack
	Host            string        `json:"host"`                 // the proxy's endpoint, or the cluster's writer endpoint
	ReaderHost      string        `json:"readerHost,omitempty"` // leads to the readers; empty if there are none
	Port            int           `json:"port"`                 // 5432
	Database        string        `json:"database"`             // to connect to
	Auth            Auth          `json:"auth"`                 // how users log in
	ClusterARN      string        `json:"clusterARN"`           // for the Data API
	MasterSecretARN string        `json:"masterSecretARN"`      // the administrator's secret, for whoever creates users
	ResourceID      string        `json:"resourceID"`           // of the proxy (prx-...) or the cluster (cluster-...), as rds-db:connect names it
	KMSKeyARN       string        `json:"kmsKeyARN,omitempty"`  // of the key the secrets are encrypted with, if it is not AWS's own
	Users           []HandoffUser `json:"users"`                // as in the Spec; the first one is the default

	// For whoever may connect past the proxy; empty if nobody may.
	ClusterHost       string `json:"clusterHost,omitempty"`       // the cluster's writer endpoint
	ClusterResourceID string `json:"clusterResourceID,omitempty"` // of the cluster (cluster-...), as rds-db:connect names it
}

// HandoffUser is one database user.
type HandoffUser struct {
	Name      string `json:"name"`
	PolicyARN string `json:"policyARN"`           // the managed policy that lets a role log in as the user
	SecretARN string `json:"secretARN,omitempty"` // with Secrets
	Direct    bool   `json:"direct,omitempty"`    // may log in past the proxy too
}

// handoffFields names each field in the stack's outputs and in the environment. Users
// are beside it: they are a list.
var handoffFields = []struct {
	output, env, about string
	get                func(*Handoff) *string
}{
	{"Region", "AURORA_REGION", "the stack's region", func(h *Handoff) *string { return &h.Region }},
	{"Host", "AURORA_HOST", "where clients connect to, to read and write", func(h *Handoff) *string { return &h.Host }},
	{"ReaderHost", "AURORA_READER_HOST", "where clients connect to, to read", func(h *Handoff) *string { return &h.ReaderHost }},
	{"Database", "AURORA_DATABASE", "the database", func(h *Handoff) *string { return &h.Database }},
	{"Auth", "AURORA_AUTH", "how users log in: iam or secrets", func(h *Handoff) *string { return (*string)(&h.Auth) }},
	{"ClusterArn", "AURORA_CLUSTER_ARN", "the cluster, for the Data API", func(h *Handoff) *string { return &h.ClusterARN }},
	{"MasterSecretArn", "AURORA_MASTER_SECRET_ARN", "the administrator's secret, for whoever creates users", func(h *Handoff) *string { return &h.MasterSecretARN }},
	{"KmsKeyArn", "AURORA_KMS_KEY_ARN", "the key the secrets are encrypted with", func(h *Handoff) *string { return &h.KMSKeyARN }},
	{"ResourceId", "AURORA_RESOURCE_ID", "the proxy or cluster, as rds-db:connect names it", func(h *Handoff) *string { return &h.ResourceID }},
	{"ClusterHost", "AURORA_CLUSTER_HOST", "the cluster itself, for whoever may connect past the proxy", func(h *Handoff) *string { return &h.ClusterHost }},
	{"ClusterResourceId", "AURORA_CLUSTER_RESOURCE_ID", "the cluster, as rds-db:connect names it", func(h *Handoff) *string { return &h.ClusterResourceID }},
}

const (
	outputPort, envPort  = "Port", "AURORA_PORT"
	outputUsers          = "Users"
	envUser              = "AURORA_USER"
	envPolicy            = "AURORA_POLICY_ARN"
	envSecret            = "AURORA_SECRET_ARN"
	outputDirect         = "DirectUsers"   // names
	envDirect            = "AURORA_DIRECT" // "true" if the user is one of them
	envURL, envReaderURL = "DATABASE_URL", "DATABASE_READER_URL"
	outputPolicy         = "PolicyArn" // followed by the user
	outputSecret         = "SecretArn" // followed by the user
	parameterPath        = "/aurora/"
)

// HandoffFromOutputs reads the outputs of a deployed stack, by output key.
func HandoffFromOutputs(outputs map[string]string) (Handoff, error) {
	var h Handoff
	for _, f := range handoffFields {
		*f.get(&h) = outputs[f.output]
	}
	h.Port, _ = strconv.Atoi(outputs[outputPort])
	direct := strings.Split(outputs[outputDirect], ",")
	if names := outputs[outputUsers]; names != "" {
		for name := range strings.SplitSeq(names, ",") {
			h.Users = append(h.Users, HandoffUser{name, outputs[outputPolicy+logicalName(name)], outputs[outputSecret+logicalName(name)], slices.Contains(direct, name)})
		}
	}
	return h, h.check("stack outputs", func(output, _ string) string { return output })
}

// HandoffFromEnv reads what [Handoff.Env] wrote; get is [os.Getenv]. Its only user is
// the one the environment was made for.
func HandoffFromEnv(get func(string) string) (Handoff, error) {
	var h Handoff
	for _, f := range handoffFields {
		*f.get(&h) = get(f.env)
	}
	h.Port, _ = strconv.Atoi(get(envPort))
	if name := get(envUser); name != "" {
		h.Users = []HandoffUser{{name, get(envPolicy), get(envSecret), get(envDirect) == "true"}}
	}
	return h, h.check("environment", func(_, env string) string { return env })
}

// ParseHandoff reads the value of the stack's SSM parameter, whose name is the output
// HandoffParameter: /aurora/NAME for the Spec's name.
func ParseHandoff(parameter []byte) (Handoff, error) {
	var h Handoff
	if err := json.Unmarshal(parameter, &h); err != nil {
		return Handoff{}, fmt.Errorf("aurora: the hand-off parameter is not what the stack wrote: %w", err)
	}
	return h, h.check("hand-off parameter", func(output, _ string) string { return strings.ToLower(output[:1]) + output[1:] })
}

// check finds what is missing, under the name it has where it was read from.
func (h Handoff) check(source string, name func(output, env string) string) error {
	var missing []string
	for _, f := range handoffFields {
		if *f.get(&h) == "" && !slices.Contains([]string{"ReaderHost", "KmsKeyArn", "ClusterHost", "ClusterResourceId"}, f.output) {
			missing = append(missing, name(f.output, f.env))
		}
	}
	if h.Port < 1 || h.Port > 65535 {
		missing = append(missing, name(outputPort, envPort))
	}
	if len(h.Users) == 0 || h.Users[0].Name == "" {
		missing = append(missing, name(outputUsers, envUser))
	}
	for _, u := range h.Users {
		if h.Auth == Secrets && u.SecretARN == "" {
			missing = append(missing, name(outputSecret+logicalName(u.Name), envSecret))
		}
	}
	if h.ClusterResourceID == "" && slices.ContainsFunc(h.Users, func(u HandoffUser) bool { return u.Direct }) {
		missing = append(missing, name("ClusterResourceId", "AURORA_CLUSTER_RESOURCE_ID"))
	}
	if len(missing) > 0 {
		return fmt.Errorf("aurora: the %s lack %s; is this a stack of a template made by this package?", source, strings.Join(missing, ", "))
	}
	if h.Auth != IAM && h.Auth != Secrets {
		return fmt.Errorf("aurora: the %s: %s is %q, which is neither %q nor %q", source, name("Auth", "AURORA_AUTH"), h.Auth, IAM, Secrets)
	}
	return nil
}

// User finds a user by name; the empty name is the first user.
func (h Handoff) User(name string) (HandoffUser, error) {
	i := slices.IndexFunc(h.Users, func(u HandoffUser) bool { return name == "" || u.Name == name })
	if i < 0 {
		return HandoffUser{}, fmt.Errorf("aurora: there is no user %q in the hand-off", name)
	}
	return h.Users[i], nil
}

// URL is the connection string for one user, or for the first if user is empty, as
// proxy.NewPool takes it: without a password, because that is a token or comes from the
// secret it names.
func (h Handoff) URL(user string) (string, error) { return h.url(h.Host, user) }

// ReaderURL is [Handoff.URL] for the readers. It fails if there are none.
func (h Handoff) ReaderURL(user string) (string, error) {
	if h.ReaderHost == "" {
		return "", errors.New("aurora: the stack has no endpoint for readers")
	}
	return h.url(h.ReaderHost, user)
}

func (h Handoff) url(host, user string) (string, error) {
	u, err := h.User(user)
	if err != nil {
		return "", err
	}
	if h.Port != port {
		host += ":" + strconv.Itoa(h.Port)
	}
	return connString(host, h.Database, u.Name, u.SecretARN), nil
}

// connString is the one place where the form of the connection string is decided. The
// parts may hold CloudFormation's ${...}.
func connString(host, database, user, secretARN string) string {
	if secretARN != "" {
		return "postgres://" + host + "/" + database + "?secret=" + secretARN
	}
	return "postgres://" + user + "@" + host + "/" + database
}

// Env is the environment of a service that logs in as one user, or as the first if
// user is empty: DATABASE_URL and, if there are readers, DATABASE_READER_URL, which are
// all that it takes to connect; and AURORA_... for the rest.
func (h Handoff) Env(user string) (map[string]string, error) {
	u, err := h.User(user)
	if err != nil {
		return nil, err
	}
	env := map[string]string{envPort: strconv.Itoa(h.Port), envUser: u.Name}
	for _, f := range handoffFields {
		env[f.env] = *f.get(&h)
	}
	env[envPolicy], env[envSecret] = u.PolicyARN, u.SecretARN
	if u.Direct {
		env[envDirect] = "true"
	}
	if env[envURL], err = h.URL(user); err != nil {
		return nil, err
	}
	if h.ReaderHost != "" {
		if env[envReaderURL], err = h.ReaderURL(user); err != nil {
			return nil, err
		}
	}
	for name, value := range env {
		if value == "" {
			delete(env, name)
		}
	}
	return env, nil
}

// IAMPolicy is the policy of a role that logs in as one user and as nobody else, with
// the ARNs of the deployed stack. The template has the same as a managed policy:
// HandoffUser.PolicyARN.
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html
func (h Handoff) IAMPolicy(user string) ([]byte, error) {
	u, err := h.User(user)
	if err != nil {
		return nil, err
	}
	// arn:partition:rds:region:account:cluster:name
	part := strings.Split(h.ClusterARN, ":")
	if len(part) < 6 || part[0] != "arn" {
		return nil, fmt.Errorf("aurora: the hand-off's cluster ARN %q is none", h.ClusterARN)
	}
	if h.Auth == IAM {
		ids := []string{h.ResourceID}
		if u.Direct {
			ids = append(ids, h.ClusterResourceID)
		}
		for i, id := range ids {
			ids[i] = fmt.Sprintf("arn:%s:rds-db:%s:%s:dbuser:%s/%s", part[1], h.Region, part[4], id, u.Name)
		}
		return json.MarshalIndent(statements(allow([]string{"rds-db:connect"}, ids)), "", "\t")
	}
	suffix := "amazonaws.com"
	if part[1] == "aws-cn" {
		suffix += ".cn"
	}
	rules := readSecrets(h.KMSKeyARN, "secretsmanager."+h.Region+"."+suffix, u.SecretARN)
	return json.MarshalIndent(statements(rules...), "", "\t")
}

// addHandoff adds the outputs and the parameter.
func (s Spec) addHandoff(t *template) {
	host, reader := getAtt("Cluster", "Endpoint.Address"), ""
	values := map[string]any{
		"Region": ref("AWS::Region"), "Database": s.Database, "Auth": string(s.Auth), "ResourceId": s.resourceID(),
		"ClusterArn": getAtt("Cluster", "DBClusterArn"), "MasterSecretArn": getAtt("Cluster", "MasterUserSecret.SecretArn"),
	}
	if s.KMSKey != "" {
		values["KmsKeyArn"] = s.KMSKey
	}
	hostText := "${Cluster.Endpoint.Address}"
	switch {
	case !s.Proxy.Off:
		host, hostText = getAtt("Proxy", "Endpoint"), "${Proxy.Endpoint}"
		if s.hasReaderEndpoint() {
			values["ReaderHost"], reader = getAtt("ProxyReaderEndpoint", "Endpoint"), "${ProxyReaderEndpoint.Endpoint}"
		}
	case len(s.Readers) > 0:
		values["ReaderHost"], reader = getAtt("Cluster", "ReadEndpoint.Address"), "${Cluster.ReadEndpoint.Address}"
	}
	values["Host"] = host
	if s.direct() {
		values["ClusterHost"], values["ClusterResourceId"] = getAtt("Cluster", "Endpoint.Address"), getAtt("Cluster", "DBClusterResourceId")
	}
	for _, f := range handoffFields {
		if v, ok := values[f.output]; ok {
			t.output(f.output, f.about, v)
		}
	}
	t.output(outputPort, "the port", strconv.Itoa(port))
	names := make([]string, len(s.Users))
	var direct []string
	for i, u := range s.Users {
		names[i] = u.Name
		if u.Direct && s.direct() {
			direct = append(direct, u.Name)
		}
		id := logicalName(u.Name)
		t.output(outputPolicy+id, "attach it to the role that logs in as "+u.Name, ref("Connect"+id))
		if s.Auth == Secrets {
			t.output(outputSecret+id, "user name and password of "+u.Name, ref("Secret"+id))
		}
	}
	t.output(outputUsers, "the database users; the first is the default", strings.Join(names, ","))
	if len(direct) > 0 {
		t.output(outputDirect, "the users who may log in to the cluster itself", strings.Join(direct, ","))
	}
	t.output("HandoffParameter", "the SSM parameter with all of this as JSON", ref("HandoffParameter"))

	first, secret := s.Users[0].Name, ""
	if s.Auth == Secrets {
		secret = "${Secret" + logicalName(first) + "}"
	}
	t.output("DatabaseUrl", "DATABASE_URL of a service that logs in as "+first, sub(connString(hostText, s.Database, first, secret)))
	if reader != "" {
		t.output("DatabaseReaderUrl", "the same for the readers", sub(connString(reader, s.Database, first, secret)))
	}
	t.add("HandoffParameter", "AWS::SSM::Parameter", "holds all that an application has to know, as JSON", "https://docs.aws.amazon.com/systems-manager/latest/userguide/systems-manager-parameter-store.html", props{
		"Name": parameterPath + s.Name, "Type": "String", "Description": s.Name + ": the hand-off to applications",
		"Tier":  "Intelligent-Tiering", // costs nothing up to 4 KB, and holds the 8 KB that many users need
		"Value": props{"Fn::Sub": []any{s.handoffText(hostText, reader), props{"ResourceId": s.resourceID()}}},
	})
}

// handoffText is the parameter's value, with ${...} where CloudFormation puts what it
// knows.
func (s Spec) handoffText(host, reader string) string {
	h := Handoff{
		Region: "${AWS::Region}", Host: host, ReaderHost: reader, Port: port, Database: s.Database, Auth: s.Auth,
		ClusterARN: "${Cluster.DBClusterArn}", MasterSecretARN: "${Cluster.MasterUserSecret.SecretArn}", ResourceID: "${ResourceId}", KMSKeyARN: s.KMSKey,
	}
	if s.direct() {
		h.ClusterHost, h.ClusterResourceID = "${Cluster.Endpoint.Address}", "${Cluster.DBClusterResourceId}"
	}
	for _, u := range s.Users {
		id := logicalName(u.Name)
		user := HandoffUser{Name: u.Name, PolicyARN: "${Connect" + id + "}", Direct: u.Direct && s.direct()}
		if s.Auth == Secrets {
			user.SecretARN = "${Secret" + id + "}"
		}
		h.Users = append(h.Users, user)
	}
	text, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(text)
}
