package proxy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/proxy"
)

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	tests := []struct {
		host   string
		kind   proxy.Kind
		region string
	}{
		{"app.proxy-abc123.eu-west-1.rds.amazonaws.com", proxy.KindProxy, "eu-west-1"},
		{"APP.Proxy-ABC123.EU-West-1.rds.amazonaws.com.", proxy.KindProxy, "eu-west-1"},
		{"reports.endpoint.proxy-abc123.eu-west-1.rds.amazonaws.com", proxy.KindProxyEndpoint, "eu-west-1"},
		{"db.cluster-abc123.us-gov-west-1.rds.amazonaws.com", proxy.KindWriter, "us-gov-west-1"},
		{"db.cluster-ro-abc123.us-east-1.rds.amazonaws.com", proxy.KindReader, "us-east-1"},
		{"batch.cluster-custom-abc123.us-east-1.rds.amazonaws.com", proxy.KindCustom, "us-east-1"},
		{"db-instance-1.abc123.ap-southeast-2.rds.amazonaws.com", proxy.KindInstance, "ap-southeast-2"},
		{"db.shardgrp-abc123.us-east-1.rds.amazonaws.com", proxy.KindWriter, "us-east-1"},
		{"db.global-abc123.global.rds.amazonaws.com", proxy.KindGlobal, ""},
		{"db.cluster-abc123.cn-north-1.rds.amazonaws.com.cn", proxy.KindWriter, "cn-north-1"},
		{"db.cluster-abc123.rds.cn-northwest-1.amazonaws.com.cn", proxy.KindWriter, "cn-northwest-1"},
		{"app.proxy-abc123.rds.cn-north-1.amazonaws.com.cn", proxy.KindProxy, "cn-north-1"},
		{"db.cluster-abc123.us-iso-east-1.rds.c2s.ic.gov", proxy.KindWriter, "us-iso-east-1"},
		{"localhost", proxy.KindOther, ""},
		{"postgres", proxy.KindOther, ""},
		{"my_db.internal", proxy.KindOther, ""},
		{"10.0.0.1", proxy.KindOther, ""},
		{"2001:db8::1", proxy.KindOther, ""},
		{"/var/run/postgresql", proxy.KindOther, ""},
	}
	for _, tt := range tests {
		e, err := proxy.ParseEndpoint(tt.host)
		if err != nil || e.Kind != tt.kind || e.Region != tt.region {
			t.Errorf("%s: got %+v, %v; want %s in %q", tt.host, e, err, tt.kind, tt.region)
		}
		if e.Kind.IsRDS() && e.Host != strings.ToLower(strings.TrimSuffix(tt.host, ".")) {
			t.Errorf("%s: host %q is not normalized", tt.host, e.Host)
		}
	}
}

func TestParseEndpointRefusesWhatIsNoHost(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"":               "empty",
		".":              "empty",
		"postgres://x.y": "scheme",
		"db.cluster-abc.eu-west-1.rds.amazonaws.com:5432":   "port",
		"db.cluster-abc.eu-west-1.rds.amazonaws.com/orders": "slash",
		"a..b":                           "label",
		"-a.b":                           "label",
		strings.Repeat("a", 64) + ".com": "label",
		strings.Repeat("a.", 150) + "b":  "253",
		"app server":                     "character",
		"app%2eserver":                   "character",
		"rds.amazonaws.com":              "looks like",
		"eu-west-1.rds.amazonaws.com":    "is not one",
		"app.proxy-abc.eu-west-1.rds.amazonaws.co":        "does not end like one",
		"app.proxy-abc.eu-west-1.amazonaws.com":           "does not end like one",
		"app.proxy-abc.euwest1.rds.amazonaws.com":         "is not one",
		"a.b.cluster-abc.eu-west-1.rds.amazonaws.com":     "is not one",
		"app.extra.proxy-abc.eu-west-1.rds.amazonaws.com": "is not one",
	} {
		_, err := proxy.ParseEndpoint(host)
		var cfgErr *proxy.ConfigError
		if !errors.As(err, &cfgErr) || !strings.Contains(err.Error(), want) || cfgErr.Fix == "" {
			t.Errorf("%q: got %v, want an error about %q with a fix", host, err, want)
		}
	}
}

func FuzzParseEndpoint(f *testing.F) {
	f.Add("app.endpoint.proxy-abc123.eu-west-1.rds.amazonaws.com")
	f.Add("db.cluster-abc123.rds.cn-northwest-1.amazonaws.com.cn.")
	f.Add("..rds.amazonaws.com")
	f.Fuzz(func(t *testing.T, host string) {
		e, err := proxy.ParseEndpoint(host)
		if err != nil {
			if _, ok := errors.AsType[*proxy.ConfigError](err); !ok {
				t.Fatalf("%v is no ConfigError", err)
			}
			return
		}
		again, err := proxy.ParseEndpoint(e.Host)
		if err != nil || again != e {
			t.Fatalf("%q gives %+v, and that gives %+v, %v", host, e, again, err)
		}
	})
}
