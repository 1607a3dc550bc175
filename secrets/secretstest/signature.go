package secretstest

// The check of a request's Signature Version 4: it is signed again, by the SDK's own
// signer, and compared
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	service       = "secretsmanager"
	amzDateFormat = "20060102T150405Z"
	clockSkew     = 15 * time.Minute // what AWS allows
)

func (s *Server) checkSignature(r *http.Request, body []byte) *apiError {
	refuse := func(code, message string) *apiError { return &apiError{http.StatusBadRequest, code, message} }
	given := r.Header.Get("Authorization")
	if given == "" {
		return refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	rest, ok := strings.CutPrefix(given, "AWS4-HMAC-SHA256 ")
	if !ok {
		return refuse("IncompleteSignatureException", "The algorithm is not AWS4-HMAC-SHA256.")
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		parts[key] = value
	}
	signed := strings.Split(parts["SignedHeaders"], ";")
	for _, name := range []string{"host", "x-amz-date", "x-amz-target"} {
		if !slices.Contains(signed, name) {
			return refuse("IncompleteSignatureException", "The header "+name+" is not signed.")
		}
	}
	at, err := time.Parse(amzDateFormat, r.Header.Get("X-Amz-Date"))
	if err != nil {
		return refuse("IncompleteSignatureException", "X-Amz-Date is missing or malformed.")
	}
	if skew := time.Since(at); skew > clockSkew || skew < -clockSkew {
		return refuse("InvalidSignatureException", "Signature expired or not yet current: "+r.Header.Get("X-Amz-Date"))
	}
	keyID, scope, _ := strings.Cut(parts["Credential"], "/")
	switch {
	case keyID != s.key.AccessKeyID:
		return refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	case scope != at.Format("20060102")+"/"+region+"/"+service+"/aws4_request":
		return refuse("InvalidSignatureException", "Credential should be scoped to a valid region and service: "+scope)
	}
	want, err := s.sign(r, body, signed, at)
	if err != nil || !hmac.Equal([]byte(want), []byte(given)) {
		return refuse("InvalidSignatureException", "The request signature we calculated does not match the signature you provided.")
	}
	return nil
}

// sign computes the Authorization header that r should have.
func (s *Server) sign(r *http.Request, body []byte, signed []string, at time.Time) (string, error) {
	again := &http.Request{
		Method: r.Method, Host: r.Host, Header: http.Header{},
		URL: &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawQuery: r.URL.RawQuery},
	}
	for _, name := range signed {
		switch name {
		case "host":
		case "content-length":
			n, err := strconv.ParseInt(r.Header.Get("Content-Length"), 10, 64)
			if err != nil {
				n = r.ContentLength
			}
			again.ContentLength = n
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	sum := sha256.Sum256(body)
	err := v4.NewSigner().SignHTTP(context.Background(), s.key, again, hex.EncodeToString(sum[:]), service, region, at)
	return again.Header.Get("Authorization"), err
}
