package proxytest

// The check of an IAM token. A token is a Signature Version 4 presigned GET of
// HOST:PORT/?Action=connect&DBUser=USER for the service rds-db, with the scheme cut off; the
// signature is computed again here and compared
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.IAMDBAuth.Connecting.html,
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const (
	tokenLifetime = 900 * time.Second // what a token may ask for at most
	tokenSkew     = 5 * time.Minute   // how far ahead the signer's clock may be
	amzDateFormat = "20060102T150405Z"
)

// tokenVerifier knows what a token has to be signed for, and with which key.
type tokenVerifier struct {
	endpoint string // host:port
	region   string
	key      aws.Credentials
}

// verify tells when the token was signed, and why it is not good. The reason is for the log: a
// client learns only that the token was refused.
func (v *tokenVerifier) verify(token, user string, now time.Time) (signedAt time.Time, err error) {
	endpoint, rawQuery, ok := strings.Cut(token, "?")
	if !ok {
		return signedAt, errors.New("password is not an IAM token")
	}
	q, err := url.ParseQuery(rawQuery)
	if err != nil {
		return signedAt, errors.New("query of the IAM token is malformed")
	}
	for name, values := range q {
		if len(values) != 1 {
			return signedAt, fmt.Errorf("query of the IAM token has %s more than once", name)
		}
	}
	signedAt, err = time.Parse(amzDateFormat, q.Get("X-Amz-Date"))
	if err != nil {
		return time.Time{}, errors.New("IAM token has no valid X-Amz-Date")
	}
	host := strings.TrimSuffix(endpoint, "/")
	return signedAt, errors.Join(
		v.checkSubject(host, user, q),
		checkAge(signedAt, q.Get("X-Amz-Expires"), now),
		v.checkKey(q, signedAt, now),
		v.checkSignature(host, q, signedAt),
	)
}

func (v *tokenVerifier) checkSubject(host, user string, q url.Values) error {
	switch {
	case host != v.endpoint:
		return fmt.Errorf("IAM token is signed for %q, this is %q", host, v.endpoint)
	case q.Get("Action") != "connect":
		return fmt.Errorf("IAM token is for action %q, not connect", q.Get("Action"))
	case q.Get("DBUser") != user:
		return fmt.Errorf("IAM token is signed for user %q, not %q", q.Get("DBUser"), user)
	}
	return nil
}

func checkAge(signedAt time.Time, expires string, now time.Time) error {
	seconds, err := strconv.Atoi(expires)
	lifetime := time.Duration(seconds) * time.Second
	switch age := now.Sub(signedAt); {
	case err != nil || seconds <= 0:
		return errors.New("IAM token has no valid X-Amz-Expires")
	case seconds > int(tokenLifetime/time.Second):
		return fmt.Errorf("IAM token asks for %d s, at most %s are allowed", seconds, tokenLifetime)
	case age > lifetime:
		return fmt.Errorf("IAM token expired %s ago", (age - lifetime).Round(time.Second))
	case age < -tokenSkew:
		return fmt.Errorf("IAM token is signed %s in the future", (-age).Round(time.Second))
	}
	return nil
}

func (v *tokenVerifier) checkKey(q url.Values, signedAt, now time.Time) error {
	keyID, scope, _ := strings.Cut(q.Get("X-Amz-Credential"), "/")
	switch {
	case q.Get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256":
		return errors.New("IAM token is not signed with AWS4-HMAC-SHA256")
	case q.Get("X-Amz-SignedHeaders") != "host":
		return errors.New("IAM token must sign the host header and no other")
	case keyID != v.key.AccessKeyID:
		return errors.New("IAM token is signed with an unknown access key")
	case scope != v.scope(signedAt):
		return fmt.Errorf("IAM token has scope %q, want %q", scope, v.scope(signedAt))
	case subtle.ConstantTimeCompare([]byte(q.Get("X-Amz-Security-Token")), []byte(v.key.SessionToken)) != 1:
		return errors.New("IAM token carries a session token that is not the access key's")
	case v.key.CanExpire && now.After(v.key.Expires):
		return errors.New("access key that signed the IAM token has expired")
	}
	return nil
}

func (v *tokenVerifier) scope(signedAt time.Time) string {
	return signedAt.Format("20060102") + "/" + v.region + "/rds-db/aws4_request"
}

func (v *tokenVerifier) checkSignature(host string, q url.Values, signedAt time.Time) error {
	given, err := hex.DecodeString(q.Get("X-Amz-Signature"))
	if err != nil {
		return errors.New("signature of the IAM token is not hexadecimal")
	}
	q.Del("X-Amz-Signature")
	query := strings.ReplaceAll(q.Encode(), "+", "%20")
	emptyPayload := sha256.Sum256(nil)
	canonical := "GET\n/\n" + query + "\nhost:" + host + "\n\nhost\n" + hex.EncodeToString(emptyPayload[:])
	digest := sha256.Sum256([]byte(canonical))
	toSign := "AWS4-HMAC-SHA256\n" + signedAt.Format(amzDateFormat) + "\n" + v.scope(signedAt) + "\n" +
		hex.EncodeToString(digest[:])
	key := []byte("AWS4" + v.key.SecretAccessKey)
	for _, part := range []string{signedAt.Format("20060102"), v.region, "rds-db", "aws4_request"} {
		key = hmacSHA256(key, part)
	}
	if !hmac.Equal(given, hmacSHA256(key, toSign)) {
		return errors.New("signature of the IAM token is wrong")
	}
	return nil
}

func hmacSHA256(key []byte, message string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(message))
	return mac.Sum(nil)
}

// tokenHash lets tests tell tokens apart without keeping one.
func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
